"""What a run with quantization-aware training leaves beside its checkpoints: the integers."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from cadenza.algorithms import convert
from cadenza.recipe.schema import Run
from cadenza.surgery.fake_quantized import FakeQuantized


def keep_integers(recipe: Run, model: Any, folder: Path) -> None:
    """Write `integers.safetensors`, what `convert` gives, and say how many bytes that takes.

    Not of a model that still calibrates, and not of one in shards, of which no rank holds all.
    """
    layers = [module for module in model.modules() if isinstance(module, FakeQuantized)]
    if not layers or any(layer.calibrating for layer in layers) or recipe.train.parallelism_config:
        return
    integers = convert(model)
    path = folder / "integers.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(integers, path)
    before = sum(tensor.nbytes for tensor in model.state_dict().values())
    after = sum(tensor.nbytes for tensor in integers.values())
    print(f"integers: {path}, {after:,} bytes; the state they stand for takes {before:,}", flush=True)
