"""The plot of the ablation: loss against time, and what each technique gives at equal time."""

from pathlib import Path
from statistics import fmean
from typing import Any

from cadenza.studies.ablation.results import Comparison, Results
from cadenza.studies.ablation.settings import Ablation


def draw(path: Path, cfg: Ablation, results: Results, pairs: list[Comparison]) -> None:
    """Draw both parts to the file at `path`."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _curves(left, results, shown(cfg, results, pairs))
    _gains(right, results, pairs)
    figure.savefig(path, dpi=120)


def shown(cfg: Ablation, results: Results, pairs: list[Comparison]) -> list[str]:
    """The rows with a curve: the baseline, those to be reached, those that are compared with the baseline."""
    compared = {pair.first for pair in pairs if pair.second == cfg.baseline}
    return [name for name in results.steps if name in {cfg.baseline, *cfg.reach, *compared}]


def _curves(axes: Any, results: Results, names: list[str]) -> None:
    """Means over seeds, with the range."""
    for name in names:
        points = list(zip(*results.curves(name).values(), strict=True))
        if not points:
            continue
        minutes = [results.minutes(name, each[0][0]) for each in points]
        losses = [[loss for _, loss in each] for each in points]
        (line,) = axes.plot(minutes, [fmean(each) for each in losses], label=name)
        ends = [min(each) for each in losses], [max(each) for each in losses]
        axes.fill_between(minutes, *ends, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="minutes of training: steps x measured time of a step", ylabel="evaluation loss, nats")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _gains(axes: Any, results: Results, pairs: list[Comparison]) -> None:
    """A dot with its interval for each comparison, the first on top."""
    for height, pair in enumerate(reversed(pairs)):
        found = results.difference(pair, "time", "loss")
        if found is not None:
            ends = [[found.mean - found.low], [found.high - found.mean]]
            axes.errorbar([found.mean], [height], xerr=ends, fmt="o", color="C0", capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [_label(pair) for pair in reversed(pairs)])
    axes.set_xlabel("loss at equal time, difference in nats")
    axes.grid(alpha=0.3)


def _label(pair: Comparison) -> str:
    return pair.pair if pair.label == pair.first else f"{pair.label}, in {pair.first}"
