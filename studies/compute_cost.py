"""What does a network cost, by the bits of its weights and activations? The cost models of AQT.

    python -m cadenza.studies.compute_cost resnet50 --weight-bits 4 --activation-bits 4 --edge-bits 8

After "Pareto-Optimal Quantized ResNet Is Mostly 4-bit" (arXiv 2105.03536). Multiply-accumulates (MACs) of
convolutions and linear layers count, those of attention scores, norms and sums don't. The quadratic model
takes the bits of the weight times the bits of the activation for each MAC, like the area of a multiplier.
The linear model takes the larger of the two, rounded up to 4, 8 or 16, like the time on tensor cores. A layer
that isn't quantized has 16 bits.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.models import ModelError
from cadenza.models.resnet import DEPTHS, resnet
from cadenza.options import Range
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.studies.checks import Parser, count, guarded, number
from cadenza.surgery.retype import stock_class

PLAIN = 16
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class LayerCost:
    """A layer: the MACs of one example, the number of weights, and the bits of weights and activations."""

    path: str
    macs: int
    weights: int
    weight_bits: int
    activation_bits: int

    @property
    def width(self) -> int:
        """The bits that the linear model takes for a MAC."""
        larger = max(self.weight_bits, self.activation_bits)
        return next(bits for bits in (4, 8, PLAIN) if larger <= bits)


def layer_costs(model: nn.Module, *inputs: Any, **named: Any) -> list[LayerCost]:
    """The layers of `model` that a call with `inputs`, a batch of one, reaches; works on the meta device."""
    found: dict[str, LayerCost] = {}
    shared: dict[int, Tensor] = {}  # holds the tensors, so that no id is used twice

    def note(path: str, layer: Any, out: Tensor) -> None:
        weight, shape = layer.weight, _shape(layer)
        if path not in found:
            found[path] = LayerCost(path, 0, 0 if id(weight) in shared else shape.numel(), *_bits(layer))
            shared[id(weight)] = weight
        channels = shape[0 if isinstance(layer, LAYERS) else 1]  # transformers' Conv1D is (in, out)
        found[path].macs += out.numel() * shape.numel() // channels

    with _watched(model, note), torch.no_grad():
        model.eval()(*inputs, **named)
    return list(found.values())


def totals(costs: list[LayerCost]) -> dict[str, float]:
    """The sums `macs`, `quadratic`, `linear` and `memory_bits` over layers, and their ratios to 16 bits."""
    macs, weights = sum(c.macs for c in costs), sum(c.weights for c in costs)
    quadratic = sum(c.macs * c.weight_bits * c.activation_bits for c in costs)
    linear = sum(c.macs * c.width for c in costs)
    memory = sum(c.weights * c.weight_bits for c in costs)
    return {
        "macs": macs,
        "quadratic": quadratic,
        "linear": linear,
        "memory_bits": memory,
        "quadratic_ratio": quadratic / (macs * PLAIN**2),
        "linear_ratio": linear / (macs * PLAIN),
        "memory_ratio": memory / (weights * PLAIN),
    }


def table(name: str, found: dict[str, float]) -> str:
    """A Markdown table of `totals`."""
    head = [f"| {name} | cost | of that in 16 bits |", "| --- | --- | --- |"]
    lines = [*head, f"| MACs | {found['macs']:,} | |"]
    labels = {"quadratic": "MAC x bits x bits", "linear": "MAC x bits", "memory": "bits of weights"}
    for key, label in labels.items():
        cost = found.get(key, found.get("memory_bits"))
        lines.append(f"| {label} | {cost:,} | {found[f'{key}_ratio']:.4f} |")
    return "\n".join(lines)


@contextmanager
def _watched(model: nn.Module, note: Any) -> Iterator[None]:
    """Within the context, `note(path, layer, output)` runs after each call of a convolution or linear layer.

    On exit each module is back in the mode that it had, training or evaluation.
    """
    training = [module for module in model.modules() if module.training]
    hooks = [
        module.register_forward_hook(lambda layer, _, out, path=path: note(path, layer, out))
        for path, module in model.named_modules()
        if isinstance(module, LAYERS) or stock_class(module).__name__ == "Conv1D"
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True


def _shape(layer: Any) -> torch.Size:
    return layer.shape if isinstance(layer, Quantized) else layer.weight.shape


def _bits(layer: Any) -> tuple[int, int]:
    """Of a weight and its input; the statistics of a quantized weight don't count."""
    if isinstance(layer, Quantized):
        return (8, 8) if layer.storage == "int8" else (4, PLAIN)
    return getattr(layer, "weight_bits", None) or PLAIN, getattr(layer, "activation_bits", None) or PLAIN


def build(name: str, size: int, tokens: int, width: float) -> tuple[nn.Module, Tensor]:
    """A model and an input of one example; `name` is a model of torchvision or a Hugging Face folder.

    Raises:
        ModelError: `name` is neither of the two.
    """
    from torchvision.models import get_model, list_models

    with torch.device("meta"):
        image = torch.empty(1, 3, size, size)
        if name in DEPTHS:
            return resnet(name, width).module, image
        if name in list_models():
            return get_model(name, weights=None), image
    if (Path(name) / "config.json").is_file():  # not on meta: some models read the values of their inputs
        return _from_folder(name), torch.ones(1, tokens, dtype=torch.long)
    raise ModelError(
        f"{name} is neither a model of torchvision, such as resnet50, nor a folder with a config.json"
    )


def _from_folder(name: str) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.from_pretrained(name)
    cls = getattr(transformers, (config.architectures or ["AutoModel"])[0])
    return cls(config) if cls is not transformers.AutoModel else cls.from_config(config)


def _costs(options: argparse.Namespace) -> list[LayerCost]:
    model, example = build(options.model, options.image_size, options.tokens, options.width)
    given = (options.weight_bits, options.activation_bits)
    weight, activation = (None if bits == PLAIN else bits for bits in given)
    if weight or activation:
        apply_quantization_aware_training(model, weight, activation, options.edge_bits)
    elif options.edge_bits not in (None, PLAIN):
        raise ModelError("--edge-bits needs --weight-bits or --activation-bits below 16")
    return layer_costs(model, example)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    parser = Parser(
        prog="python -m cadenza.studies.compute_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="a model of torchvision, such as resnet50, or a Hugging Face folder")
    bits = {
        "weight": "weights, 2 to 8, or 16 (default)",
        "activation": "activations, 2 to 8, or 16 (default)",
        "edge": "the first and last layer, 2 to 8 (default: those of the others)",
    }
    bits_type = number(Range("[2, 8]", whole=True), PLAIN)
    for name, help in bits.items():
        parser.add_argument(f"--{name}-bits", type=bits_type, metavar="N", help=f"of {help}")
    parser.add_argument(
        "--width", type=number(Range("(0, 64]")), default=1.0, help="of a ResNet (default: %(default)s)"
    )
    parser.add_argument(
        "--image-size", type=count(1, 65536), default=224, help="pixels (default: %(default)s)"
    )
    parser.add_argument("--tokens", type=count(), default=128, help="of an example (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)

    def study() -> None:
        found = totals(_costs(options))
        print(json.dumps(found) if options.json else table(options.model, found))

    return guarded(study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
