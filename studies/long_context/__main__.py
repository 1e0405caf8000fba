"""How a decoder's context is best extended, from short windows to long ones, on the machine at hand.

    python -m cadenza.studies.long_context yamls/long_context_study.yaml [OVERLAY.yaml ...] [key=value ...]

For each seed a decoder is trained on short windows, and then by each row on long ones. Scores: loss by the
position in a document, recall of values that stand far back, tasks like those of RULER. A study that was
stopped resumes: what was trained is kept.
"""

import sys

from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.long_context.study import study
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, LongContext, __doc__, study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
