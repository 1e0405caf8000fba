"""The report of the ablation: ablation.md, ablation.json and ablation.png."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cadenza.recipe import record
from cadenza.studies import report
from cadenza.studies.ablation import findings, plot
from cadenza.studies.ablation.plan import BUDGETS
from cadenza.studies.ablation.results import Comparison, Results
from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.intervals import CANT_TELL, Interval, interval

NAME = "ablation"


def write(folder: Path, cfg: Ablation, results: Results, pairs: list[Comparison]) -> None:
    """Write and print what was found."""
    page = "\n".join(
        [
            *(about(cfg, results), "", rows_table(results, cfg.reach), "", gains_table(results, pairs), ""),
            *findings.findings(results, pairs, cfg.reach),
        ]
    )
    (folder / f"{NAME}.md").write_text(page + "\n")
    (folder / f"{NAME}.json").write_text(report.as_json(facts(cfg, results, pairs)))
    plot.draw(folder / f"{NAME}.png", cfg, results, pairs)
    print(f"{page}\n\nwritten: {folder / NAME}.csv, .md, .json, .png", flush=True)


def about(cfg: Ablation, results: Results) -> str:
    """What was run, in a paragraph."""
    steps = results.steps[cfg.baseline]["time"]
    return (
        f"{len(results.steps)} rows, {len(cfg.seeds)} seeds. Equal steps are {steps:,}; equal time is "
        f"{cfg.minutes:g} min of training, which {cfg.baseline} takes for them. Losses are in nats, on the "
        "same evaluation text, masked alike. Differences are paired by seed and followed by their 95 % "
        f'interval; "{CANT_TELL}" says that it holds 0.'
    )


def rows_table(results: Results, reach: list[str]) -> str:
    """A Markdown table with a line for each row of the study."""
    base = results.baseline
    head = ["row", "ms a step", f"time of a step, {base} = 1"]
    head += ["loss, equal steps", "accuracy", "steps, equal time", "loss, equal time", "accuracy"]
    head += [f"time to the loss of {target}, {base}'s = 1" for target in reach]
    body = []
    for name in results.steps:
        cells = [name, f"{1000 * results.speeds.seconds(name):.1f}"]
        cells += [findings.ratio(results.speeds.ratio(name, base)), *_means(results, name, "steps")]
        cells += [f"{results.steps[name]['time']:,}", *_means(results, name, "time")]
        body.append([*cells, *(_time(results.shares(name, target)) for target in reach)])
    return report.table(head, body)


def gains_table(results: Results, pairs: list[Comparison]) -> str:
    """A Markdown table of what each technique gives."""
    head = ["what", "rows", "time of a step", "loss, equal steps", "loss, equal time"]
    head += ["accuracy, points, equal steps", "accuracy, points, equal time"]
    body = []
    for pair in pairs:
        losses = [findings.loss(results.difference(pair, budget, "loss")) for budget in BUDGETS]
        accuracies = [findings.points(results.difference(pair, budget, "accuracy")) for budget in BUDGETS]
        ratio = findings.ratio(results.speeds.ratio(pair.first, pair.second))
        body.append([pair.label, pair.pair, ratio, *losses, *accuracies])
    return report.table(head, body)


def facts(cfg: Ablation, results: Results, pairs: list[Comparison]) -> dict[str, Any]:
    """All numbers; an interval is [mean, low, high]."""
    return {
        "settings": asdict(cfg),
        "commit": record.commit(),
        "versions": record.versions(),
        "rows": {name: _row(results, name, cfg.reach) for name in results.steps},
        "comparisons": [_comparison(results, pair) for pair in pairs],
    }


def _row(results: Results, name: str, reach: list[str]) -> dict[str, Any]:
    measures = {
        budget: {key: results.by_seed(name, budget, key) for key in ("loss", "accuracy")}
        for budget in BUDGETS
    }
    return {
        "seconds_a_step": results.speeds.seconds(name),
        "steps": dict(results.steps[name]),
        "by_seed": measures,
        "curves": results.curves(name),
        "time_to_loss": {target: results.shares(name, target) for target in reach},
    }


def _comparison(results: Results, pair: Comparison) -> dict[str, Any]:
    ratio = results.speeds.ratio(pair.first, pair.second)
    differences = {
        budget: {key: _list(results.difference(pair, budget, key)) for key in ("loss", "accuracy")}
        for budget in BUDGETS
    }
    return {**pair._asdict(), "time_of_a_step": _list(ratio), **differences}


def _list(found: Interval | None) -> list[float] | None:
    return None if found is None else [found.mean, found.low, found.high]


def _means(results: Results, name: str, budget: str) -> list[str]:
    losses, accuracies = (results.mean(name, budget, key) for key in ("loss", "accuracy"))
    accuracy = "" if accuracies is None else f"{accuracies.mean:.1%}"
    return ["" if losses is None else f"{losses.mean:.3f}", accuracy]


def _time(shares: list[float | None]) -> str:
    found = [share for share in shares if share is not None]
    if len(found) < len(shares):
        return f"{len(found)} of {len(shares)} seeds"
    return findings.share(interval(found))
