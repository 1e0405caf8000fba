"""The plots of the study: accuracy and generalization gap against cost, and what the variants give."""

from pathlib import Path
from typing import Any

from cadenza.studies import report
from cadenza.studies.intervals import Interval
from cadenza.studies.qat_pareto.findings import YES, dominated
from cadenza.studies.qat_pareto.points import Kind
from cadenza.studies.qat_pareto.results import Results
from cadenza.studies.qat_pareto.settings import PLAIN


def draw(folder: Path, results: Results) -> list[Path]:
    """Draw to files of `folder`; those that were written."""
    written = [_accuracy(folder / "qat_pareto.png", results)]
    if any(results.mean(kind, "gap") for kind in results.trained):
        written.append(_gap(folder / "qat_gap.png", results))
    if any(kind.trained and kind != kind.base for kind in results.kinds):
        written.append(_variants(folder / "qat_variants.png", results))
    return written


def front_of_means(results: Results) -> list[Kind]:
    """The trained kinds that no other beats in both linear cost and mean accuracy, ordered by cost."""
    best, kept = -1.0, []
    for kind in sorted(results.trained, key=lambda k: (results.cost(k, "linear"), -_mean(results, k))):
        if _mean(results, kind) > best:
            best = _mean(results, kind)
            kept.append(kind)
    return kept


def _accuracy(path: Path, results: Results) -> Path:
    """A line with intervals for each choice of bits, the front of the means, crosses on the dominated."""
    axes = _axes("accuracy, %")
    _lines(axes, results, "accuracy")
    style = {"where": "post", "color": "black", "alpha": 0.25, "lw": 5, "zorder": 0}
    axes.step(*_xy(results, front_of_means(results)), label="front of the means", **style)
    plain = [kind for kind in results.trained if kind.bits == PLAIN]
    beaten = [kind for kind in plain if dominated(results, kind)[0] == YES]
    if beaten:
        axes.plot(*_xy(results, beaten), "kx", markersize=12, label="dominated for sure")
    report.save(axes, path)
    return path


def _gap(path: Path, results: Results) -> Path:
    axes = _axes("generalization gap, points of accuracy")
    _lines(axes, results, "gap")
    report.save(axes, path)
    return path


def _variants(path: Path, results: Results) -> Path:
    """A dot with its interval for each variant against the same network and bits without it."""
    kinds = [kind for kind in results.kinds if kind.trained and kind != kind.base]
    axes = report.new_axes()
    for height, kind in enumerate(reversed(kinds)):
        if found := results.difference(kind, kind.base):
            (low, high), fill = _ends(found), "C0" if found.low == found.low else "white"  # one seed: hollow
            ends, style = [[low], [high]], {"fmt": "o", "color": "C0", "mfc": fill, "capsize": 3}
            axes.errorbar([100 * found.mean], [height], xerr=ends, **style)
    axes.axvline(0, color="black", linewidth=0.8, label="base")
    labels = [f"{kind.variant}, {kind.bits}, {kind.network}" for kind in reversed(kinds)]
    axes.set_yticks(range(len(kinds)), labels, fontsize="small")
    axes.set_xlabel("accuracy against base, points")
    axes.figure.set_figheight(max(3.0, 0.3 * len(kinds) + 1))
    report.save(axes, path)
    return path


def _lines(axes: Any, results: Results, measure: str) -> None:
    """The trained kinds of each choice of bits, ordered by cost; with intervals."""
    bits = list(dict.fromkeys(kind.bits for kind in results.trained))
    for each in bits:
        kinds = [kind for kind in results.trained if kind.bits == each]
        found = [(kind, mean) for kind in kinds if (mean := results.mean(kind, measure))]
        found.sort(key=lambda pair: results.cost(pair[0], "linear"))
        ends = list(zip(*(_ends(mean) for _, mean in found), strict=True))
        costs = [results.cost(kind, "linear") for kind, _ in found]
        label = "full precision" if each == PLAIN else each
        means = [100 * mean.mean for _, mean in found]
        axes.errorbar(costs, means, yerr=ends, marker="o", capsize=3, label=label)


def _ends(found: Interval) -> tuple[float, float]:
    """How far an interval reaches below and above its mean, in points; 0 for one seed."""
    if found.low != found.low:
        return 0.0, 0.0
    return 100 * (found.mean - found.low), 100 * (found.high - found.mean)


def _axes(ylabel: str) -> Any:
    axes = report.new_axes()
    axes.set(xlabel="compute cost, MAC x bits (linear model)", ylabel=ylabel, xscale="log")
    return axes


def _mean(results: Results, kind: Kind) -> float:
    found = results.mean(kind)
    return 0.0 if found is None else found.mean


def _xy(results: Results, kinds: list[Kind]) -> tuple[list[float], list[float]]:
    return [results.cost(kind, "linear") for kind in kinds], [100 * _mean(results, kind) for kind in kinds]
