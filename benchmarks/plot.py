"""Plot the newest rows of the result files.

- `step.png`: a training step's time on a CPU by padding and length, from `step.csv`;
- `gpu.png`: real tokens/s by technique on a GPU, from `gpu.csv`;
- `context.png`: an attention's step time by context length on a GPU, from `anchor.csv`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from harness import RESULTS, parser

from cadenza.attention.kernels.table import KERNELS
from cadenza.studies.running import cells

COLORS = {"0%": "#b8b8b8", "50%": "#2b6cb0"}
STYLES = {"full causal SDPA": "-", "intra_document": ":", "anchor": "--"}
Rows = dict[tuple[str, str], dict[str, str]]


class Missing(Exception):
    """Rows that a plot needs are missing; the message names the script that measures them."""


def newest(path: Path, script: str, device: str = "NVIDIA") -> Rows:
    """The last row of each case and variant that was measured on a device of that name."""
    rows = [row for row in cells.done(path) if device in row["device"]]
    if not rows:
        where = " on a CUDA machine" if device else ""
        raise Missing(f"{path} has no such rows: run benchmarks/{script}{where}")
    return {(row["case"], row["variant"]): row for row in rows}


def steps(path: Path, target: Path) -> None:
    """Plot a panel for each shape of BERT."""
    rows = newest(path, "bench_step.py", device="")
    figure, panels = plt.subplots(1, 2, figsize=(11, 4))
    for axes, shape in zip(panels, ("hidden 256", "base width"), strict=True):
        _step_bars(axes, shape, rows)
    panels[0].legend()
    title = "Training step on one CPU thread: 128 columns with padding, and lengths 16 to 512"
    _save(figure, title, target)


def _step_bars(axes, shape: str, rows: Rows) -> None:
    """Plot the milliseconds per 1,000 real tokens."""
    cases = [case for case, variant in rows if case.startswith(shape) and variant == "stock"]
    for offset, variant, color in ((-0.2, "stock", "#b8b8b8"), (0.2, "unpadding+sparse", "#2b6cb0")):
        heights = [1e6 / float(rows[case, variant]["tokens_per_second"]) for case in cases]
        bars = axes.bar([i + offset for i in range(len(cases))], heights, 0.4, label=variant, color=color)
        if variant != "stock":
            axes.bar_label(bars, [f"{float(rows[case, variant]['speedup']):.1f}x" for case in cases])
    axes.set_xticks(range(len(cases)), [case.split(", ")[1] for case in cases])
    axes.set_title(f"BERT, {shape}, 4 layers")
    axes.set_ylabel("ms per 1,000 real tokens")


def techniques(path: Path, target: Path) -> None:
    """Plot a panel for each shape and number of columns."""
    rows = newest(path, "bench_gpu.py")
    cases = sorted({tuple(case.split(", ")[:2]) for case, _ in rows if "columns" in case}, key=_order)
    if not cases:
        raise Missing(f"{path} has ceilings but no steps: run benchmarks/bench_gpu.py again")
    high, wide = -(-len(cases) // 3), min(3, len(cases))
    figure, grid = plt.subplots(high, wide, figsize=(1 + 5.5 * wide, 4 * high), squeeze=False)
    for axes in grid.flat[len(cases) :]:
        axes.axis("off")
    for axes, case in zip(grid.flat, cases, strict=False):
        _bars(axes, ", ".join(case), rows)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="upper right", ncols=2)
    _save(figure, f"Real tokens/s of a training step in bf16, {_device(rows)}", target)


def _order(case: tuple[str, ...]) -> tuple[int, int]:
    return ["base", "large", "modernbert"].index(case[0]), int(case[1].split()[0])


def _bars(axes, case: str, rows: Rows) -> None:
    """Plot a bar for each variant and padding that was measured."""
    names = list(dict.fromkeys(variant for found, variant in rows if found.startswith(f"{case},")))
    for offset, (padding, color) in zip((-0.2, 0.2), COLORS.items(), strict=True):
        key = f"{case}, {padding} padding"
        at = [(i, float(rows[key, n]["tokens_per_second"])) for i, n in enumerate(names) if (key, n) in rows]
        if at:
            bars = axes.barh([i + offset for i, _ in at], [x / 1e3 for _, x in at], 0.4, color=color)
            bars.set_label(f"{padding} padding")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_title(case)
    axes.set_xlabel("1,000 real tokens/s")


def context(path: Path, target: Path) -> None:
    """Plot a panel for each length of documents, with a line for each kind of attention and kernel."""
    found = newest(path, "bench_anchor.py")
    rows = {(c, v): row for (c, v), row in found.items() if c.startswith("layer") and _is_there(v)}
    if not rows:
        raise Missing(f"{path} has no layers from a GPU: run benchmarks/bench_anchor.py on a CUDA machine")
    lengths = sorted({int(case.split(" by ")[1]) for case, _ in rows})
    figure, panels = plt.subplots(1, len(lengths), figsize=(7 * len(lengths), 5), squeeze=False)
    for axes, length in zip(panels.flat, lengths, strict=True):
        _lines(axes, length, rows)
    _save(figure, f"One attention of Llama-3-8B, forward and backward, {_device(rows)}", target)


def _is_there(variant: str) -> bool:
    """Whether the kernel that a variant names still exists."""
    return "," not in variant or variant.split(", ")[1] in KERNELS


def _lines(axes, length: int, rows: Rows) -> None:
    found = {key: row for key, row in rows.items() if key[0].endswith(f" by {length}")}
    for name in dict.fromkeys(variant for _, variant in found):
        at = sorted((int(c.split()[1]), float(r["seconds"])) for (c, v), r in found.items() if v == name)
        axes.loglog(*zip(*at, strict=True), STYLES[name.split(", ")[0]], marker="o", label=name)
    windows = sorted({int(case.split()[1]) for case, _ in found})
    axes.set_xticks(windows, [f"{window:,}" for window in windows], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title(f"documents of {length:,} tokens")
    axes.set_xlabel("context length")
    axes.set_ylabel("seconds")
    axes.legend()


def _device(rows: Rows) -> str:
    return ", ".join(dict.fromkeys(row["device"] for row in rows.values()))


def _save(figure, title: str, target: Path) -> None:
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    print(f"written: {target}")


PLOTS = ((steps, "step", "step"), (techniques, "gpu", "gpu"), (context, "anchor", "context"))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files and plots")
    folder, missing = options.parse_args().results, []
    for plot, source, target in PLOTS:
        try:
            plot(folder / f"{source}.csv", folder / f"{target}.png")
        except Missing as error:
            missing.append(f"not written: {folder / target}.png; {error}")
    if missing:
        raise SystemExit("\n".join(missing))


if __name__ == "__main__":
    main()
