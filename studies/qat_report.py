"""The report of the QAT study: its table, its findings and its plots."""

from pathlib import Path
from typing import Any

from cadenza.studies import qat_findings, report
from cadenza.studies.qat_findings import PLAIN, beaten, front


def table(rows: list[report.Row]) -> str:
    """A Markdown table of the means over seeds."""
    names = ["network", "bits", "linear cost, 16 bit = 1", "weights, kbit", "top-1", "over seeds"]
    body = []
    for r in sorted(rows, key=lambda r: (r["model_type"], r["width"], not r["trained"], -r["linear"])):
        bits = r["bits"] if r["trained"] else f"{r['bits']}, after training"
        cost = [f"{r['linear_ratio']:.3f}", f"{r['memory_bits'] / 1e3:,.0f}"]
        spread = f"{r['low']:.2%} to {r['high']:.2%}" if r["seeds"] > 1 else ""
        accuracies = [f"{r['top1']:.2%}", spread, f"{r['train_top1']:.2%}", f"{r['gap']:.2%}"]
        body.append([f"{r['model_type']} x {r['width']:g}", bits, *cost, *accuracies])
    return report.table([*names, "top-1, training images", "gap"], body)


def write(folder: Path, rows: list[report.Row]) -> None:
    """Write and print `qat_pareto.md`, and plot accuracy and generalization gap against cost."""
    means = qat_findings.over_seeds(rows)
    page = "\n".join([table(means), "", *qat_findings.findings(means)])
    (folder / "qat_pareto.md").write_text(page + "\n")
    _plot(folder / "qat_pareto.png", means)
    _plot_gap(folder / "qat_gap.png", means)
    print(f"{page}\n\nwritten: {folder / 'qat_pareto'}.csv, .md, .png, {folder / 'qat_gap.png'}")


def _axes(ylabel: str) -> Any:
    axes = report.new_axes()
    axes.set(xlabel="compute cost, MAC x bits (linear model)", ylabel=ylabel, xscale="log")
    return axes


def _lines(means: list[report.Row]) -> dict[str, list[report.Row]]:
    """The trained points by the label of their bits, each ordered by cost."""
    lines: dict[str, list[report.Row]] = {}
    for row in sorted((row for row in means if row["trained"]), key=lambda r: r["linear"]):
        lines.setdefault("full precision" if row["bits"] == PLAIN else row["bits"], []).append(row)
    return lines


def _plot(path: Path, means: list[report.Row]) -> None:
    """Accuracy against cost: a line for each choice of bits, the front, and crosses on dominated points."""
    axes, trained = _axes("top-1, %"), [row for row in means if row["trained"]]
    for label, line in _lines(means).items():
        ends = [[100 * (r["top1"] - r["low"]) for r in line], [100 * (r["high"] - r["top1"]) for r in line]]
        axes.errorbar(*_xy(line), yerr=ends, marker="o", capsize=3, label=label)
    style = {"where": "post", "color": "black", "alpha": 0.4, "lw": 5, "zorder": 0}
    axes.step(*_xy(front(trained, "linear")), label="front", **style)
    dominated = [row for row in trained if row["bits"] == PLAIN and beaten(row, trained)]
    axes.plot(*_xy(dominated), "kx", markersize=12, label="dominated")
    report.save(axes, path)


def _plot_gap(path: Path, means: list[report.Row]) -> None:
    axes = _axes("generalization gap, points of top-1")
    for label, line in _lines(means).items():
        axes.plot([r["linear"] for r in line], [100 * r["gap"] for r in line], marker="o", label=label)
    report.save(axes, path)


def _xy(rows: list[report.Row]) -> tuple[list[float], list[float]]:
    return [r["linear"] for r in rows], [100 * r["top1"] for r in rows]
