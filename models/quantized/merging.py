"""LoRA adapters merged into the quantized weights that they were trained on.

1. The layer of peft gets, for a moment, a plain layer with the dequantized weight in float32 as its base.
2. peft merges the adapters into that. So each kind of adapter that peft can merge is merged, such as DoRA.
3. The merged weight is stored in the format of the layer again, or in the dtype of the model.

Layers without adapters keep their codes. One layer at a time is in float32.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cadenza.models.errors import ModelError
from cadenza.models.quantized.config import NAME
from cadenza.quantization.stored.formats import packed
from cadenza.quantization.stored.quantized_linear import Quantized, dequantize
from cadenza.surgery.ledger import enter, ledger


@dataclass(frozen=True)
class MergeReport:
    """What storing merged weights in few bits, or in the model's dtype, does to them.

    Attributes:
        errors: of each layer that was merged, the Frobenius norm of the difference between the stored and the
            merged weight, over that of the merged weight.
        change: the same of the difference between the merged weight and the one before; where an error is as
            large as that, it can drown the adapters.
    """

    errors: dict[str, float] = field(default_factory=dict)
    change: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> str:
        """The layer with the largest error."""
        return max(self.errors, key=lambda path: self.errors[path])

    def __str__(self) -> str:
        error, moved = self.errors[self.worst], self.change[self.worst]
        return (
            f"merged adapters into {len(self.errors)} quantized layers; storing them changes {self.worst} "
            f"most, by {error:.2%} of its norm (the adapters changed it by {moved:.2%})"
        )


def merge_adapters(model: nn.Module, requantize: bool = True) -> tuple[PreTrainedModel, MergeReport]:
    """Merge the active adapters of peft into quantized weights; `model` is used up.

    Without `requantize` the result computes what the adapted model did, to rounding, because the adapters are
    added to the numbers that they were trained on. With it each merged layer is rounded anew, by about the
    error of its format (9 % of its norm in nf4), so its outputs differ; evaluate them.

    Args:
        model: a PeftModel, or a module that holds one, such as Composer's wrapper.
        requantize: store the merged weights in the formats of their layers; else all weights are in the
            dtype of the model, those of layers without adapters, too.

    Returns:
        The Hugging Face model without adapters, and what the storing did to the merged weights.

    Raises:
        ModelError: `model` doesn't hold one PeftModel, or its adapters are on no quantized layer.
        SurgeryError: the format can't hold a merged weight.
    """
    adapted, report = _adapted(model), MergeReport()
    for path, tuner in _on_quantized(adapted).items():
        layer = tuner.base_layer
        before = layer.dequantized(torch.float32)
        merged = _merged(tuner, layer, before.clone())
        _store(layer, path, merged) if requantize else _restore(layer, merged)
        stored = layer.dequantized(torch.float32) if requantize else layer.weight
        report.errors[path] = _relative(stored - merged, merged)
        report.change[path] = _relative(merged - before, merged)
    whole = adapted.merge_and_unload()  # adapters on other layers; those merged above are known to be
    left = {path: module for path, module in whole.named_modules() if isinstance(module, Quantized)}
    if requantize:
        _name_selected(left)
    elif left:
        dequantize(whole)
    return whole, report


def _adapted(model: nn.Module) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("merge_adapters needs peft: pip install 'cadenza[lora]'") from error
    found = [module for module in model.modules() if isinstance(module, PeftModel)]
    if len(found) != 1:
        raise ModelError(f"merge_adapters: {type(model).__name__} holds {len(found)} models of peft, not one")
    return found[0]


def _on_quantized(adapted: Any) -> dict[str, Any]:
    """The layers of peft around quantized layers, by their path in the model without adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    root = adapted.get_base_model()
    found = {path: m for path, m in root.named_modules() if isinstance(m, BaseTunerLayer)}
    on = {path: m for path, m in found.items() if isinstance(getattr(m, "base_layer", None), Quantized)}
    if not on:
        right = "merge_and_unload() of peft merges into weights in floating point"
        raise ModelError(f"merge_adapters: no adapter is on a quantized layer; {right}")
    return on


def _merged(tuner: Any, layer: Any, weight: Tensor) -> Tensor:
    """`weight` (out, in) float32 with the active adapters of `tuner` added."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    tuner.base_layer = plain
    try:
        tuner.merge()
    finally:
        tuner.base_layer = layer
    return plain.weight.detach()


def _store(layer: Any, path: str, merged: Tensor) -> None:
    """Replace the codes of `layer` by those of `merged`."""
    stored, layer.weight_error = packed(path, layer.storage, merged)
    for name, tensor in stored.items():
        layer._buffers[name] = tensor


def _restore(layer: Any, merged: Tensor) -> None:
    """Give `layer` the weight `merged` in floating point."""
    dequantize(layer)
    layer.weight.data = merged.to(layer.weight.dtype)


def _name_selected(layers: dict[str, Any]) -> None:
    """Record which `layers` are quantized by their own paths: globs were of paths with adapters."""
    for layer in layers.values():
        entry = ledger(layer)[NAME]
        if entry.options["only"] or entry.options["except_"]:
            options = {**entry.options, "only": sorted(layers), "except_": None}
            enter(layer, replace(entry, options=options))


def _relative(difference: Tensor, of: Tensor) -> float:
    norm = torch.linalg.vector_norm(of)
    return float(torch.linalg.vector_norm(difference) / norm) if norm else 0.0
