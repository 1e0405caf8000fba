"""Accuracy against compute cost, by width, depth and bits: is the front mostly 4-bit?

    python -m cadenza.studies.qat_pareto yamls/qat_pareto.yaml [OVERLAY.yaml ...] [key=value ...]

After "Pareto-Optimal Quantized ResNet Is Mostly 4-bit" (arXiv 2105.03536). A point is a recipe trained to its
end with one width, depth, choice of bits, variant and seed. A stopped point resumes from its last checkpoint,
and a point that is done isn't trained again. Post-training points quantize trained networks without more
training.

Several machines can share the work: each trains a part (part=1/2, part=2/2), and train=false with
runs=[FOLDER, ...] draws the figure of the runs that they finished.
"""

import sys

from cadenza.studies.qat_pareto.settings import Pareto
from cadenza.studies.qat_pareto.study import study
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, Pareto, __doc__, study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
