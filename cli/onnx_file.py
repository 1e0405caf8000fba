"""`cadenza export RUN FILE.onnx`: the trained integers of a run, for ONNX Runtime."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from cadenza.models import export, load, load_resnet
from cadenza.models.errors import ModelError
from cadenza.models.pretrained.exported import held_in
from cadenza.models.resnet import DEPTHS
from cadenza.quantization import Exported, export_onnx

IMAGES, SIDE = 4, 64  # of the example on which outputs are compared; the file takes other sides as well
TEXTS, LENGTH = 2, 16


def write(name: Path, file: Path, trusted: bool, options: dict[str, Any]) -> Exported:
    """Write the network of a run, a checkpoint or an exported folder to `file`; `options` of `export_onnx`.

    Raises:
        ModelError: there is nothing of that name.
        SurgeryError: it wasn't trained with `quantization_aware_training`, or can't be exported.
    """
    found = held_in(name)
    if found is None:
        raise ModelError(f"export: {name} is no run with a checkpoint, no checkpoint and no exported folder")
    with TemporaryDirectory() as scratch:
        folder = found if found.is_dir() else export(found, Path(scratch) / "model", trusted)
        network, example = _network(folder)
    return export_onnx(network, file, example, **options)


def _network(folder: Path) -> tuple[Any, Any]:
    """The network in a folder, and what it may be called with."""
    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") in DEPTHS:
        return load_resnet(folder), torch.randn(IMAGES, config["channels"], SIDE, SIDE)
    network = load(folder)
    ids = torch.randint(network.config.vocab_size, (TEXTS, LENGTH))
    return network, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
