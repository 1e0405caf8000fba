"""The report of the study: long_context.md, long_context.json and long_context.png."""

from dataclasses import asdict
from pathlib import Path

from cadenza.recipe import record
from cadenza.studies import report
from cadenza.studies.intervals import CANT_TELL
from cadenza.studies.long_context import plot
from cadenza.studies.long_context.results import Measure, Results, measures
from cadenza.studies.long_context.settings import LongContext

NAME = "long_context"


def write(cfg: LongContext, results: Results, window: int) -> None:
    """Write and print what was found.

    Args:
        window: tokens of the short windows.
    """
    folder = Path(cfg.out)
    shown = measures(cfg.lengths, window)
    page = "\n".join([about(cfg), "", means(results, shown), "", differences(cfg, results, shown)])
    (folder / f"{NAME}.md").write_text(page + "\n", encoding="utf-8")
    facts = {"settings": asdict(cfg), "commit": record.commit(), "versions": record.versions()}
    cells = [dict(cell) for cell in results.cells.values()]
    (folder / f"{NAME}.json").write_text(report.as_json({**facts, "cells": cells}))
    plot.draw(folder / f"{NAME}.png", results, cfg.lengths, window)
    print(f"{page}\n\nwritten: {folder / NAME}.csv, .md, .json, .png", flush=True)


def about(cfg: LongContext) -> str:
    """What was run, in a paragraph."""
    return (
        f"{len(cfg.rows)} rows, {len(cfg.seeds)} seeds. Losses are in nats, by the place of a token in "
        f"documents of {cfg.lengths[-1]} tokens, each alone behind the anchor. Recall is the share of known "
        "values. Differences are paired by seed and followed by their 95 % interval; "
        f'"{CANT_TELL}" says that it holds 0.'
    )


def means(results: Results, shown: dict[str, Measure]) -> str:
    """A Markdown table with a line for each row: means over seeds."""
    body = [
        [name, *(f"{results.mean(name, measure).mean:.3f}" for measure in shown.values())]
        for name in results.rows
    ]
    return report.table(["row", *shown], body)


def differences(cfg: LongContext, results: Results, shown: dict[str, Measure]) -> str:
    """A Markdown table: each row minus those that it is against."""
    body = []
    for name in cfg.rows:
        for other in cfg.row(name).against:
            found = (results.difference(name, other, measure).signed(".3f") for measure in shown.values())
            body.append([f"{name} - {other}", *found])
    return report.table(["difference", *shown], body)
