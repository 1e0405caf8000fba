"""What users hold: for each set of techniques a saved folder, a Composer checkpoint, and the logits of both.

`tests/kept/VERSION/NAME/` holds what that version wrote; later versions load it (`tests/test_kept.py`) and
never write it again. Run with the version as an argument to keep what the code of today writes:
`python tests/kept/make.py 0.2`.
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from families import batch, build
from safetensors.torch import save_file
from test_composer import trainer

from cadenza.algorithms import GLU, ALiBi, PostTrainingQuantization, QuantizationAwareTraining, VocabPadding
from cadenza.models import save

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SETS = {
    "alibi_glu_vocab_padding": ("bert", SMALL, lambda: [ALiBi(), GLU("swiglu"), VocabPadding(32)]),
    "nf4": (
        "llama",
        {"num_hidden_layers": 1},
        lambda: [PostTrainingQuantization("nf4-dq", except_=["*.q_proj"])],
    ),
    "quantization_aware_training": (
        "bert",
        SMALL,
        lambda: [QuantizationAwareTraining(4, 8, edge_bits=8, calibrate_until="2ba")],
    ),
}


def make(name: str, folder: Path) -> None:
    """Train the model of `name` on three batches and keep it."""
    family, sizes, algorithms = SETS[name]
    model = build(family, seed=11, **sizes)
    made = trainer(model.train(), algorithms(), family)
    made.fit()
    made.save_checkpoint(str(folder / "checkpoint.pt"))
    save(model.eval(), folder / "saved")
    save_file({"logits": logits(model, family)}, folder / "logits.safetensors")


def logits(model: torch.nn.Module, family: str) -> torch.Tensor:
    """(3, 13, words) of a fixed batch without padding."""
    with torch.no_grad():
        return model(input_ids=batch(family, seed=7)["input_ids"]).logits.contiguous()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in SETS:
        folder = Path(__file__).parent / sys.argv[1] / name
        folder.mkdir(parents=True)
        make(name, folder)
