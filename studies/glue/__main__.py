"""Scores of pretrained models fine-tuned on GLUE's tasks, or on your own, with their spread over seeds.

    python -m cadenza.studies.glue yamls/glue.yaml models=[MODEL,...] [OVERLAY.yaml ...] [key=value ...]

MODEL is a name on the Hub, a folder, a run's folder or a checkpoint. Each model is trained on each task with
each seed, one run on each CUDA device at a time. A finished run isn't done again; a stopped study resumes.
Guide: docs/studies/glue.md.
"""

import sys

from cadenza.studies.glue import page, study
from cadenza.studies.glue.settings import Glue
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, Glue, __doc__, lambda cfg: page.write(cfg, study.run(cfg)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
