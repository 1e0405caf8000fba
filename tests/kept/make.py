"""What users hold: for each set of techniques a saved folder, a Composer checkpoint, and the logits of both.

`tests/kept/VERSION/NAME/` holds what that version wrote; later versions load it (`tests/test_kept.py`) and
never write it again. Run with the version as an argument to keep what the code of today writes:
`python tests/kept/make.py 0.2`.
"""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from families import build
from safetensors.torch import save_file
from saved import KEPT, kept_logits
from trainers import short_trainer

from cadenza.models import save


def make(name: str, folder: Path) -> None:
    """Train the model of `name` on three batches and keep it."""
    family, sizes, algorithms = KEPT[name]
    model = build(family, seed=11, **sizes)
    made = short_trainer(model.train(), algorithms(), family)
    made.fit()
    made.save_checkpoint(str(folder / "checkpoint.pt"))
    save(model.eval(), folder / "saved")
    save_file({"logits": kept_logits(model, family)}, folder / "logits.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for name in KEPT:
        folder = Path(__file__).parent / sys.argv[1] / name
        folder.mkdir(parents=True)
        make(name, folder)
