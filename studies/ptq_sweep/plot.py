"""The plots: KL by bits a weight, generated text by temperature, speed by batch size."""

import math
from pathlib import Path
from typing import Any

from cadenza.studies import report
from cadenza.studies.intervals import Interval
from cadenza.studies.ptq_sweep import estimates
from cadenza.studies.ptq_sweep.findings import speed_ratio
from cadenza.studies.ptq_sweep.results import Results, minus
from cadenza.studies.ptq_sweep.settings import PLAIN

MARKERS = "osD^v<>Pp*"


def draw(folder: Path, results: Results) -> list[str]:
    """Write the plots that there are data for; returns the names of their files."""
    drawn = {}
    if results.formats(results.models):
        drawn["ptq_kl.png"] = kl_by_bits
    if len(results.settings("temperature")) > 1 and drawn:
        drawn["ptq_temperature.png"] = by_temperature
    if len({batch for *_, batch in results.speed}) > 1:
        drawn["ptq_speed.png"] = by_batch
    for name, plot in drawn.items():
        plot(folder / name, results)
    return list(drawn)


def kl_by_bits(path: Path, results: Results) -> None:
    """A marker for each format, a line for each model."""
    axes = report.new_axes()
    for index, model in enumerate(results.models):
        forms = sorted(results.formats([model]), key=lambda form: results.bits(model, form))
        points = [estimates.mean(results.predicted([model], form, "kl")) for form in forms]
        sizes = [results.bits(model, form) for form in forms]
        style = {"marker": MARKERS[index % len(MARKERS)], "capsize": 3, "linestyle": "none", "label": model}
        axes.errorbar(sizes, [p.mean for p in points], yerr=_errors(points), **style)
        for form, size, point in zip(forms, sizes, points, strict=True) if index == 0 else ():
            axes.annotate(form, (size, point.mean), (4, 4), textcoords="offset points", fontsize="x-small")
    axes.set_yscale("log")
    axes.set(xlabel="bits a weight", ylabel="KL to the unquantized model, nats a token")
    report.save(axes, path)


def by_temperature(path: Path, results: Results) -> None:
    """Nats a token of generated text, formats minus unquantized, a panel for each model."""
    from matplotlib.figure import Figure  # without pyplot, which would look for a screen

    figure = Figure(figsize=(1 + 5 * len(results.models), 4.5), layout="constrained")
    panels = figure.subplots(1, len(results.models), squeeze=False, sharey=True)[0]
    values = results.settings("temperature")
    for axes, model in zip(panels, results.models, strict=True):
        plain = [results.generated([model], PLAIN, "nll", temperature=value) for value in values]
        for index, form in enumerate(results.formats([model])):
            ours = [results.generated([model], form, "nll", temperature=value) for value in values]
            points = [estimates.mean(minus(*pair)) for pair in zip(ours, plain, strict=True)]
            _band(axes, values, points, form, index)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(title=model, xlabel="temperature", ylabel="nats a token more than unquantized")
        axes.grid(alpha=0.3)
    panels[-1].legend(fontsize="small")
    figure.savefig(path, dpi=120)


def _band(axes: Any, values: list[float], points: list[Interval], form: str, index: int) -> None:
    color = f"C{index % 10}"
    axes.plot(values, [p.mean for p in points], marker=MARKERS[index % len(MARKERS)], label=form, color=color)
    axes.fill_between(values, [p.low for p in points], [p.high for p in points], alpha=0.12, color=color)


def by_batch(path: Path, results: Results) -> None:
    """Decode speed over the unquantized model's, a line for each model and format."""
    axes = report.new_axes()
    for model, form in dict.fromkeys((model, form) for model, form, _ in results.speed):
        rows = {b: row for (m, f, b), row in results.speed.items() if (m, f) == (model, form)}
        points = [speed_ratio(rows[batch], "decode") for batch in sorted(rows)]
        style = {"marker": "o", "capsize": 3, "label": f"{model}, {form}"}
        axes.errorbar(sorted(rows), [p.mean for p in points], yerr=_errors(points), **style)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    sizes = sorted({batch for *_, batch in results.speed})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set(xlabel="batch size", ylabel="decode speed / unquantized")
    report.save(axes, path)


def _errors(points: list[Interval]) -> list[list[float]]:
    """Lengths of error bars below and above; none where there is no interval."""
    pairs = [(p.mean - p.low, p.high - p.mean) for p in points]
    return [[0.0 if math.isnan(x) else max(x, 0.0) for x in side] for side in zip(*pairs, strict=True)]
