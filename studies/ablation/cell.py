"""A cell of the ablation, trained in its own process."""

import json
from typing import Any

from cadenza.studies.ablation.plan import Cell
from cadenza.studies.report import Row
from cadenza.studies.running.source import trained


def measured(cell: Cell) -> Row:
    """Pretrain and fine-tune; the losses of all evaluations, and the accuracy if there is a fine-tuning."""
    places = [f"train.run_folder={cell.out}", f"name={cell.name}", "train.autoresume=true"]
    saving = [f"train.save_interval={cell.steps}ba", "train.keep_checkpoints=1"]
    found = trained(cell.source.load(*cell.lasting, *places, *saving))
    curve = [[point["batch"], point["loss"]] for point in found["curve"]]
    accuracy = None if cell.finetune is None else _tuned(cell)["eval"]["accuracy"]
    return {
        **{"row": cell.row, "seed": cell.seed, "steps": cell.steps},
        **{"loss": found["eval"]["loss"], "accuracy": accuracy, "seconds": found["train"]["seconds"]},
        "curve": json.dumps(curve),
        "settings": cell.settings,
    }


def _tuned(cell: Cell) -> dict[str, Any]:
    """The record of the fine-tuning of the last checkpoint."""
    assert cell.finetune is not None
    places = [f"train.run_folder={cell.out}", f"name={cell.name}-finetune", "train.trust_load_path=true"]
    return trained(cell.finetune.load(f"seed={cell.seed}", f"model.pretrained={cell.folder}", *places))
