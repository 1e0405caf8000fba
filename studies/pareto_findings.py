"""What the points of a front say: tables, plots, and which findings of arXiv 2105.03536 hold on them."""

from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

from cadenza.studies import report

PLAIN = "none"
KEYS = ("model_type", "width", "bits", "trained")
TEXT = ("model_type", "bits", "settings")


def as_points(rows: list[report.Row]) -> list[report.Row]:
    """The rows of a CSV with numbers as numbers, and the gap between training and evaluation in them."""
    numbers = [{k: v if k in (*TEXT, "trained") else float(v) for k, v in row.items()} for row in rows]
    return [
        {**row, "trained": row["trained"] in (True, "True"), "gap": row["train_top1"] - row["top1"]}
        for row in numbers
    ]


def over_seeds(rows: list[report.Row]) -> list[report.Row]:
    """One row a network and its bits: means over seeds, `seeds`, and `low` and `high` of top-1."""
    groups: dict[tuple, list[report.Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in KEYS), []).append(row)
    return [
        {
            **{
                key: value if key in (*TEXT, "trained") else fmean(r[key] for r in same)
                for key, value in same[0].items()
            },
            "seeds": len(same),
            "low": min(r["top1"] for r in same),
            "high": max(r["top1"] for r in same),
        }
        for same in groups.values()
    ]


def front(rows: list[report.Row], cost: str) -> list[report.Row]:
    """Those that no other beats in both cost and accuracy, by cost."""
    best, kept = -1.0, []
    for row in sorted(rows, key=lambda r: (r[cost], -r["top1"])):
        if row["top1"] > best:
            best = row["top1"]
            kept.append(row)
    return kept


def findings(rows: list[report.Row]) -> list[str]:
    """The paper's findings, each with the numbers that speak for or against it; `rows` are means."""
    trained = [row for row in rows if row["trained"]]
    return [
        *_front_lines(trained),
        *_dominated_lines(trained),
        *_gain_lines(trained),
        *_after_lines(rows),
    ]


def _front_lines(trained: list[report.Row]) -> list[str]:
    lines = []
    for cost in ("linear", "quadratic"):
        kept = front(trained, cost)
        counts = Counter(row["bits"] for row in kept)
        four = sum(n for bits, n in counts.items() if bits.startswith("w4"))
        shown = ", ".join(f"{row['bits']} at width {row['width']:g} ({row['top1']:.2%})" for row in kept)
        holds = _holds(2 * four > len(kept))
        lines.append(
            f"- The front against {cost} cost is mostly 4-bit: {holds} {four} of {len(kept)} points: {shown}."
        )
    return lines


def _dominated_lines(trained: list[report.Row]) -> list[str]:
    plain = [row for row in trained if row["bits"] == PLAIN]
    if not plain:
        return []
    beaten = [row for row in plain if _beaten(row, trained)]
    return [
        f"- Every network in full precision is dominated: {_holds(len(beaten) == len(plain))} "
        f"{len(beaten)} of {len(plain)} have a quantized one that is better in accuracy or linear cost, "
        "and no worse in the other."
    ]


def _beaten(row: report.Row, others: list[report.Row]) -> bool:
    at, top = row["linear"], row["top1"]
    as_good = [o for o in others if o["bits"] != PLAIN and o["linear"] <= at and o["top1"] >= top]
    return any((o["linear"], o["top1"]) != (at, top) for o in as_good)


def _gain_lines(trained: list[report.Row]) -> list[str]:
    """Each number of bits against full precision in the same network."""
    lines = []
    for bits in dict.fromkeys(row["bits"] for row in trained if row["bits"] != PLAIN):
        pairs = _pairs(trained, bits)
        if pairs:
            shown = ", ".join(_difference(row, other) for row, other in pairs)
            gap = 100 * fmean(row["gap"] - other["gap"] for row, other in pairs)
            lines.append(
                f"- {bits} against full precision, points of top-1: {shown}. The generalization gap is "
                f"{abs(gap):.2f} points {'smaller' if gap < 0 else 'larger'} on average."
            )
    return lines


def _after_lines(rows: list[report.Row]) -> list[str]:
    """Quantized after training, and what was trained in the same bits."""
    lines = []
    for bits in dict.fromkeys(row["bits"] for row in rows if not row["trained"]):
        same = [row for row in rows if row["bits"] == bits]
        shown = [_after(row, same) for row in same if not row["trained"]]
        lines.append(f"- {bits} after training: {', '.join(shown)}.")
    return lines


def _after(row: report.Row, same: list[report.Row]) -> str:
    trained = [f" (trained: {t['top1']:.2%})" for t in same if t["trained"] and _same(t, row)]
    return f"{row['top1']:.2%}" + "".join(trained)


def _pairs(rows: list[report.Row], bits: str) -> list[tuple[report.Row, report.Row]]:
    plain = [row for row in rows if row["bits"] == PLAIN]
    quantized = sorted(
        (row for row in rows if row["bits"] == bits), key=lambda r: (r["model_type"], r["width"])
    )
    return [(row, other) for row in quantized for other in plain if _same(row, other)]


def _same(row: report.Row, other: report.Row) -> bool:
    return (row["model_type"], row["width"]) == (other["model_type"], other["width"])


def _difference(row: report.Row, other: report.Row) -> str:
    seeds = f", {row['seeds']} seeds" if row["seeds"] == other["seeds"] > 1 else ""
    return f"{100 * (row['top1'] - other['top1']):+.2f} at {row['model_type']} x {row['width']:g}{seeds}"


def _holds(condition: bool) -> str:
    return "holds here." if condition else "doesn't hold here."


def table(rows: list[report.Row]) -> str:
    """A Markdown table of the means over seeds."""
    names = "network", "bits", "linear cost, 16 bit = 1", "weights, kbit", "top-1", "over seeds"
    lines = ["| " + " | ".join([*names, "top-1, training images", "gap"]) + " |", "|" + " --- |" * 8]
    for r in sorted(rows, key=lambda r: (r["model_type"], r["width"], not r["trained"], -r["linear"])):
        bits = r["bits"] if r["trained"] else f"{r['bits']}, after training"
        spread = f"{r['low']:.2%} to {r['high']:.2%}" if r["seeds"] > 1 else ""
        lines.append(
            f"| {r['model_type']} x {r['width']:g} | {bits} | {r['linear_ratio']:.3f} "
            f"| {r['memory_bits'] / 1e3:,.0f} | {r['top1']:.2%} | {spread} | {r['train_top1']:.2%} "
            f"| {r['gap']:.2%} |"
        )
    return "\n".join(lines)


def write(folder: Path, rows: list[report.Row]) -> None:
    """`qat_pareto.md`, and two plots: accuracy and generalization gap against cost."""
    means = over_seeds(rows)
    said = "\n".join(findings(means))
    (folder / "qat_pareto.md").write_text(f"{table(means)}\n\n{said}\n")
    _plot(folder / "qat_pareto.png", means)
    _plot_gap(folder / "qat_gap.png", means)
    print(
        f"{table(means)}\n\n{said}\n\nwritten: {folder / 'qat_pareto'}.csv, .md, .png, "
        f"{folder / 'qat_gap.png'}"
    )


def _axes(ylabel: str) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.set(xlabel="compute cost, MAC x bits (linear model)", ylabel=ylabel, xscale="log")
    axes.grid(alpha=0.3)
    return figure, axes


def _plot(path: Path, means: list[report.Row]) -> None:
    """Accuracy against cost: a line for each number of bits, the front, and a cross on what is dominated."""
    figure, axes = _axes("top-1, %")
    trained = sorted((row for row in means if row["trained"]), key=lambda r: r["linear"])
    for bits in dict.fromkeys(row["bits"] for row in trained):
        line = [row for row in trained if row["bits"] == bits]
        ends = [[100 * (r["top1"] - r["low"]) for r in line], [100 * (r["high"] - r["top1"]) for r in line]]
        axes.errorbar(
            *_xy(line), yerr=ends, marker="o", capsize=3, label="full precision" if bits == PLAIN else bits
        )
    axes.step(
        *_xy(front(trained, "linear")), where="post", color="black", alpha=0.4, lw=5, label="front", zorder=0
    )
    beaten = [row for row in trained if row["bits"] == PLAIN and _beaten(row, trained)]
    axes.plot(*_xy(beaten), "kx", markersize=12, label="dominated")
    _save(figure, axes, path)


def _plot_gap(path: Path, means: list[report.Row]) -> None:
    figure, axes = _axes("generalization gap, points of top-1")
    trained = sorted((row for row in means if row["trained"]), key=lambda r: r["linear"])
    for bits in dict.fromkeys(row["bits"] for row in trained):
        line = [row for row in trained if row["bits"] == bits]
        label = "full precision" if bits == PLAIN else bits
        axes.plot([r["linear"] for r in line], [100 * r["gap"] for r in line], marker="o", label=label)
    _save(figure, axes, path)


def _xy(rows: list[report.Row]) -> tuple[list[float], list[float]]:
    return [r["linear"] for r in rows], [100 * r["top1"] for r in rows]


def _save(figure: Any, axes: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)
