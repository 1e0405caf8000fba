"""RULER's 13 tasks of long context (Hsieh et al., arXiv 2404.06654), and key-value retrieval, over models.

    python -m cadenza.studies.ruler 'models=[FOLDER,runs/NAME]' 'lengths=[1024,2048]' examples=20
    python -m cadenza.studies.ruler STUDY.yaml [OVERLAY.yaml ...] [key=value ...]

A model is a folder, a run, a checkpoint or a name on the Hub; `models.NAME=[CHECKPOINT,CHECKPOINT]` averages
over checkpoints. Prompts are made here from local text, so that scores can't be compared with published ones.
A finished cell isn't done again; a stopped study resumes. Guide: docs/studies/ruler.md.
"""

import sys

from cadenza.studies.ruler import page, study
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, Ruler, __doc__, lambda cfg: page.write(cfg, study.run(cfg)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
