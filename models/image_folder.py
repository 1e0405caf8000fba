"""ResNets in folders: `config.json` with sizes and surgeries, `model.safetensors` with torchvision's names.

torchvision loads the weights of a network without surgeries, of width 1 and with the `imagenet` stem.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck

from cadenza.models.errors import ModelError
from cadenza.models.resnet import DEPTHS, resnet
from cadenza.models.saved import SURGERIES, surgeries_of
from cadenza.surgery.checkpoint import parse, saved_algorithms
from cadenza.surgery.errors import CheckpointError

PREFIX = "module."  # of ComposerClassifier


def is_resnet(state: dict[str, Any]) -> bool:
    """Whether the `state` of a checkpoint is that of a recipe for images."""
    return {f"{PREFIX}conv1.weight", f"{PREFIX}fc.weight"} <= state.get("model", {}).keys()


def network_in(state: dict[str, Any], checkpoint: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The sizes with the surgeries, and the weights, of the network in `state`, which `checkpoint` holds.

    Raises:
        CheckpointError: the stem isn't known, or the weights are of another network.
    """
    weights = {key.removeprefix(PREFIX): tensor.contiguous() for key, tensor in state["model"].items()}
    listed = dict(parse(text) for key, text in saved_algorithms(state).items() if key in SURGERIES)
    config = {**_sizes(weights, checkpoint), "surgeries": listed}
    _filled(config, weights, str(checkpoint))
    return config, weights


def write_resnet(config: dict[str, Any], weights: dict[str, Tensor], folder: Path) -> None:
    """Write what `network_in` gave to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_resnet(folder: str | Path) -> Any:
    """The network, from images (batch, channels, height, width) to logits, that `cadenza export` wrote.

    Raises:
        ModelError: there is no such folder, or its weights are of another network.
    """
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"load: {file} can't be read ({error})") from error
    if config.get("model_type") not in DEPTHS:
        raise ModelError(f"load: {file} is not of a ResNet; use cadenza.models.load for a language model")
    return _filled(config, load_file(Path(folder) / "model.safetensors"), str(folder))


def _filled(config: dict[str, Any], weights: dict[str, Tensor], name: str) -> Any:
    sizes = {key: value for key, value in config.items() if key != "surgeries"}
    network = resnet(**sizes).module
    surgeries = surgeries_of(config["surgeries"])
    for surgery in surgeries:
        surgery.operate(network)
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{name}: its weights don't fit its network: {error}") from error
    for surgery in surgeries:
        surgery.loaded(network)
    return network.eval()


def _sizes(weights: dict[str, Tensor], checkpoint: Path) -> dict[str, Any]:
    """The arguments of `resnet`: from the weights, but for the stem, whose stride isn't in them."""
    blocks = [_blocks(weights, stage) for stage in range(1, 5)]
    block = Bottleneck if "layer1.0.conv3.weight" in weights else BasicBlock
    found = [name for name, depth in DEPTHS.items() if depth == (block, blocks)]
    if not found:
        raise CheckpointError(f"{checkpoint}: no ResNet has stages of {blocks} blocks")
    return {
        "model_type": found[0],
        "width": weights["layer1.0.conv1.weight"].shape[0] / 64,
        "num_classes": weights["fc.weight"].shape[0],
        "channels": weights["conv1.weight"].shape[1],
        "stem": _stem(weights, checkpoint),
    }


def _blocks(weights: dict[str, Tensor], stage: int) -> int:
    return len({key.split(".")[1] for key in weights if key.startswith(f"layer{stage}.")})


def _stem(weights: dict[str, Tensor], checkpoint: Path) -> str:
    if weights["conv1.weight"].shape[-1] == 7:
        return "imagenet"
    record = checkpoint.parent.parent / "run.json"
    try:
        return json.loads(record.read_text(encoding="utf-8"))["recipe"]["model"]["stem"]
    except (OSError, ValueError, KeyError) as error:
        right = "keep the checkpoint in its run's folder, with run.json"
        raise CheckpointError(
            f"{checkpoint}: the stride of its stem isn't in the weights; {right}"
        ) from error
