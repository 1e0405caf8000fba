"""Which findings of arXiv 2105.03536 hold on the points of the QAT study."""

from collections import Counter
from statistics import fmean

from cadenza.studies import report

PLAIN = "none"
KEYS = ("model_type", "width", "bits", "trained")
TEXT = ("model_type", "bits", "settings")


def as_points(rows: list[report.Row]) -> list[report.Row]:
    """The rows of a CSV file with numbers in place of texts, and with `gap`, the generalization gap."""
    numbers = [{k: v if k in (*TEXT, "trained") else float(v) for k, v in row.items()} for row in rows]
    return [
        {**row, "trained": row["trained"] in (True, "True"), "gap": row["train_top1"] - row["top1"]}
        for row in numbers
    ]


def over_seeds(rows: list[report.Row]) -> list[report.Row]:
    """One row for each network and bits: means over seeds, `seeds`, and top-1's extremes `low` and `high`."""
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
    """The rows that no other row beats in both cost and accuracy, ordered by cost."""
    best, kept = -1.0, []
    for row in sorted(rows, key=lambda r: (r[cost], -r["top1"])):
        if row["top1"] > best:
            best = row["top1"]
            kept.append(row)
    return kept


def findings(rows: list[report.Row]) -> list[str]:
    """The paper's findings, each with the numbers for or against it; `rows` are means over seeds."""
    trained = [row for row in rows if row["trained"]]
    lines = [*_front_lines(trained), *_dominated_lines(trained), *_gain_lines(trained)]
    return [*lines, *_after_lines(rows)]


def _front_lines(trained: list[report.Row]) -> list[str]:
    lines = []
    for cost in ("linear", "quadratic"):
        kept = front(trained, cost)
        counts = Counter(row["bits"] for row in kept)
        four = sum(n for bits, n in counts.items() if bits.startswith("w4"))
        shown = ", ".join(f"{row['bits']} at width {row['width']:g} ({row['top1']:.2%})" for row in kept)
        holds = report.holds(2 * four > len(kept))
        lines.append(
            f"- The front against {cost} cost is mostly 4-bit: {holds} {four} of {len(kept)} points: {shown}."
        )
    return lines


def _dominated_lines(trained: list[report.Row]) -> list[str]:
    plain = [row for row in trained if row["bits"] == PLAIN]
    if not plain:
        return []
    count = sum(beaten(row, trained) for row in plain)
    return [
        f"- Every network in full precision is dominated: {report.holds(count == len(plain))} "
        f"{count} of {len(plain)} have a quantized one that is better in accuracy or linear cost, "
        "and no worse in the other."
    ]


def beaten(row: report.Row, others: list[report.Row]) -> bool:
    """Whether a quantized one of `others` is better in linear cost or top-1, and no worse in the other."""
    cost, top1 = row["linear"], row["top1"]
    as_good = [o for o in others if o["bits"] != PLAIN and o["linear"] <= cost and o["top1"] >= top1]
    return any((o["linear"], o["top1"]) != (cost, top1) for o in as_good)


def _gain_lines(trained: list[report.Row]) -> list[str]:
    """Each choice of bits against full precision in the same network."""
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
    """Networks quantized after training, against those trained with the same bits."""
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
