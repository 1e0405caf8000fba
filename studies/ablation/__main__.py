"""What each technique of MosaicBERT gives at equal steps and at equal time, on the machine at hand.

    python -m cadenza.studies.ablation yamls/ablation.yaml [OVERLAY.yaml ...] [key=value ...]

The time of a training step is measured first, for all rows in one process. Then each row is pretrained with
each seed, once for the steps and once for the time of the baseline, and fine-tuned on labelled text if the
settings name some. A study that was stopped resumes: what was measured and trained is kept.
"""

import sys

from cadenza.studies.ablation.settings import Ablation
from cadenza.studies.ablation.study import study
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, Ablation, __doc__, study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
