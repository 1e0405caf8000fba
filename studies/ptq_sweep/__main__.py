"""Quantized models against the unquantized ones: prediction on fixed text, generated text, and speed.

    python -m cadenza.studies.ptq_sweep yamls/ptq_sweep.yaml [OVERLAY.yaml ...] [key=value ...]

The questions are those of "Understanding the Impact of Post-Training Quantization on Large Language Models"
(arXiv 2309.05210); the measures need no judge. Prediction is compared token by token with the unquantized
model's. Generated text is compared with what the unquantized model generates from the same prompts with the
same random numbers, under the same temperature, top_k and max_new_tokens. Each finished cell is written at
once; a stopped study resumes. Guide: docs/studies/ptq.md.
"""

import sys

from cadenza.studies.ptq_sweep import page, study
from cadenza.studies.ptq_sweep.settings import Sweep
from cadenza.studies.running import cells


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    return cells.command_line(arguments, Sweep, __doc__, lambda cfg: page.write(cfg, study.run(cfg)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
