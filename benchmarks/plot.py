"""Plot `results/step.png`: a step's time by padding and length, from the newest rows of `step.csv`."""

import matplotlib.pyplot as plt
from harness import RESULTS

from cadenza.studies import cells


def plot(axes, shape: str, rows: dict[tuple[str, str], dict[str, str]]) -> None:
    """Plot one panel: milliseconds per 1,000 real tokens."""
    cases = [case for case, variant in rows if case.startswith(shape) and variant == "stock"]
    for offset, variant, color in ((-0.2, "stock", "#b8b8b8"), (0.2, "unpadding+sparse", "#2b6cb0")):
        heights = [1e6 / float(rows[case, variant]["tokens_per_second"]) for case in cases]
        bars = axes.bar([i + offset for i in range(len(cases))], heights, 0.4, label=variant, color=color)
        if variant != "stock":
            labels = [f"{float(rows[case, variant]['speedup']):.1f}x" for case in cases]
            axes.bar_label(bars, labels)
    axes.set_xticks(range(len(cases)), [case.split(", ")[1] for case in cases])
    axes.set_title(f"BERT, {shape}, 4 layers")
    axes.set_ylabel("ms per 1,000 real tokens")


if __name__ == "__main__":
    newest = {(row["case"], row["variant"]): row for row in cells.done(RESULTS / "step.csv")}
    figure, panels = plt.subplots(1, 2, figsize=(11, 4))
    for axes, shape in zip(panels, ("hidden 256", "base width"), strict=True):
        plot(axes, shape, newest)
    panels[0].legend()
    figure.suptitle("Training step on one CPU thread: 128 columns with padding, and lengths 16 to 512")
    figure.tight_layout()
    figure.savefig(RESULTS / "step.png", dpi=110)
    print(f"written: {RESULTS / 'step.png'}")
