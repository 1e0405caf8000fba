"""The page of the study: its tables and findings, and the plots beside it."""

from collections.abc import Sequence
from pathlib import Path

from cadenza.studies import report
from cadenza.studies.intervals import CANT_TELL, Interval
from cadenza.studies.qat_pareto import plot
from cadenza.studies.qat_pareto.findings import findings, on_front, points, within
from cadenza.studies.qat_pareto.points import Kind, Point
from cadenza.studies.qat_pareto.results import Results
from cadenza.studies.qat_pareto.settings import Pareto

NAME = "qat_pareto"


def write(cfg: Pareto, results: Results, missing: Sequence[Point]) -> None:
    """Write and print `qat_pareto.md`, and draw accuracy, generalization gap and variants."""
    folder = Path(cfg.out)
    parts = [about(cfg, results, missing), table(results), variants_table(results, cfg.margin)]
    text = "\n\n".join([*filter(None, parts), "\n".join(findings(results, cfg.margin))])
    (folder / f"{NAME}.md").write_text(text + "\n")
    drawn = plot.draw(folder, results)
    print(f"{text}\n\nwritten: {folder / NAME}.csv, .md, {', '.join(map(str, drawn))}", flush=True)


def about(cfg: Pareto, results: Results, missing: Sequence[Point]) -> str:
    """What was run, in a paragraph."""
    versions = {row["versions"] for rows in results.rows.values() for row in rows.values()}
    said = (
        f"{len(results.rows)} kinds of networks, {len(cfg.seeds)} seeds. Accuracies are means over seeds; "
        "differences are paired by seed; both are followed by their 95 % interval, which holds by itself. "
        f'"{CANT_TELL}" says that it holds 0 or that there is one seed. Trained with '
        f"{'; '.join(sorted(filter(None, versions)))}."
    )
    if missing:
        said += f" {len(missing)} points aren't there yet, such as {missing[0].name}."
    return said


def table(results: Results) -> str:
    """A Markdown table of the networks without variants."""
    head = ["network", "bits", "linear cost, 16 bit = 1", "weights, kbit", "accuracy"]
    gaps = any(results.mean(kind, "gap") for kind in results.rows)
    head += [*(["on training images", "gap"] if gaps else []), "on the front of linear cost", "s of training"]
    body = []
    for kind in (each for each in results.kinds if each == each.base):
        cost = f"{results.cost(kind, 'linear_ratio'):.3f}", f"{results.cost(kind, 'memory_bits') / 1e3:,.0f}"
        means = ["accuracy", *(["train_accuracy", "gap"] if gaps else [])]
        scores = [share(results.mean(kind, measure)) for measure in means]
        front = on_front(results, kind, "linear") if kind.trained else ""
        body.append([kind.network, kind.shown_bits, *cost, *scores, front, _seconds(results, kind)])
    return report.table(head, body)


def variants_table(results: Results, margin: float) -> str:
    """A Markdown table of each variant against its base; empty if there is none.

    Full precision is that with the same change where there is one: an init or a schedule changes it too.
    """
    head = ["network", "bits", "variant", "accuracy", "points against base", "points against full precision"]
    kinds = [kind for kind in results.kinds if kind.trained and kind != kind.base]
    if not kinds:
        return ""
    body = []
    for kind in sorted({*kinds, *(kind.base for kind in kinds)} & results.rows.keys(), key=results.order):
        plain = results.full(kind)
        full = None if kind == plain else results.difference(kind, plain)
        base = None if kind == kind.base else results.difference(kind, kind.base)
        verdict = "" if full is None else within(full, margin)
        scores = [share(results.mean(kind)), points(base), points(full), verdict, _seconds(results, kind)]
        body.append([kind.network, kind.shown_bits, kind.variant, *scores])
    return report.table([*head, f"within {margin:g} points of it", "s of training"], body)


def share(found: Interval | None) -> str:
    """An accuracy, with its interval if there is one."""
    if found is None:
        return ""
    known = found.low == found.low  # not NaN
    return f"{found.mean:.2%}" + (f" ({found.low:.2%} to {found.high:.2%})" if known else "")


def _seconds(results: Results, kind: Kind) -> str:
    found = results.mean(kind, "seconds")
    return f"{found.mean:.0f}" if found and kind.trained else ""
