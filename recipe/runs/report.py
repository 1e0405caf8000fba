"""The plot of several runs: their loss against steps, tokens or images, and seconds."""

from pathlib import Path

from cadenza.recipe.runs.curves import AXES, Curves, draw_losses


def draw(runs: list[Curves], target: Path) -> Path:
    """Draw the training and evaluation loss of `runs` to the file `target`.

    Raises:
        ImportError: matplotlib, an extra, isn't installed.
    """
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    counted = "tokens" if any(_has(run, "tokens") for run in runs) else "samples"
    axes_of = ("batch", counted, "seconds")
    figure = Figure(figsize=(5.5 * len(axes_of), 5), layout="constrained")
    panels = figure.subplots(1, len(axes_of), sharey=True, squeeze=False)[0]
    for axes, against in zip(panels, axes_of, strict=True):
        for number, run in enumerate(runs):
            draw_losses(axes, run, against, f"{run.name}: " if len(runs) > 1 else "", f"C{number}")
        axes.set_xlabel(AXES[against])
    panels[0].set_ylabel("loss, cross-entropy in nats")
    figure.suptitle("Loss of " + ", ".join(f"{run.name} ({run.model})" for run in runs))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(target, dpi=120)
    return target


def _has(run: Curves, axis: str) -> bool:
    return any(axis in row for row in run.training)
