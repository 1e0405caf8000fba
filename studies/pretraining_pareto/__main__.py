"""Loss and score of pretraining runs against hours, tokens and floating-point operations (FLOPs).

    python -m cadenza.studies.pretraining_pareto runs/bert runs/mosaicbert --target loss=2.1
    python -m cadenza.studies.pretraining_pareto runs/bert-17 runs/bert-18 runs/mosaicbert \\
        --group bert=runs/bert-17,runs/bert-18 --scores runs/studies/glue/glue.json --target score=0.796

After figure 1 of MosaicBERT (arXiv 2312.17482). A point is an evaluation of a run (loss), or a checkpoint
with a score. Written are pareto.md, .csv, .json and .png. Printed is also the command that scores checkpoints
without a score. Ratios are to the first run or group. More: docs/studies/pareto.md.
"""

import argparse
import sys
from pathlib import Path

from cadenza.options import Range
from cadenza.studies import report
from cadenza.studies.checks import count, guarded, number
from cadenza.studies.pretraining_pareto.groups import group
from cadenza.studies.pretraining_pareto.study import study
from cadenza.studies.pretraining_pareto.targets import Target

FINITE = Range("(-1e300, 1e300)")


def target(text: str) -> Target:
    """A `type` of argparse: `loss=2.1`, `score=0.8`, or the value alone."""
    measure, _, value = text.rpartition("=")
    if measure not in ("", "loss", "score"):
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be like loss=2.1 or score=0.8")
    return Target(measure, number(FINITE)(value))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = report.parser("pretraining_pareto", __doc__)
    made.add_argument("runs", nargs="*", type=Path, help="folders of runs of composer train.py")
    add = made.add_argument
    also = {"action": "append", "default": []}
    add("--group", type=group, metavar="NAME=RUN,RUN", **also, help="runs that are seeds of one recipe")
    add("--scores", type=Path, metavar="FILE.json", **also, help="results of python -m cadenza.studies.glue")
    add("--without-loss", action="store_true", help="compare scores alone, of runs with other evaluations")
    add(
        "--target",
        type=target,
        metavar="loss=VALUE",
        **also,
        help="what it takes to reach it; or score=VALUE",
    )
    add("--price", type=number(Range("(0, 1e300)")), help="dollars for an hour of a device")
    add("--published", action="store_true", help="draw the paper's curves, apart")
    add("--checkpoints", type=count(), default=5, help="of each run, to score (default: %(default)s)")
    return made


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    return guarded(lambda: study(options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
