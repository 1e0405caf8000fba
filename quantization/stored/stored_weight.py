"""What `layer.weight` is in a quantized layer: a tensor that can be read, but not written."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from cadenza.surgery.errors import SurgeryError


class StoredWeight(Tensor):
    """A weight with the stock shape, dtype and device, and no memory. Each operation on it unpacks it.

    Models ask a weight for its dtype, and cast activations to it; adapters such as DoRA read its numbers. An
    operation that writes raises, because the codes would not change.
    """

    layer: Any

    @staticmethod
    def of(layer: Any) -> "StoredWeight":
        codes, make = layer._buffers["weight"], Tensor._make_wrapper_subclass  # pyright: ignore
        weight = make(StoredWeight, layer.shape, dtype=layer.weight_dtype, device=codes.device)
        weight.__dict__.update(codes.__dict__, layer=layer)  # transformers marks what it has loaded
        return weight

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            raise _refusal()
        if func is torch.ops.aten.detach.default:
            return StoredWeight.of(args[0].layer)
        read = tree_map_only(StoredWeight, lambda w: w.layer.dequantized(w.dtype), (args, kwargs or {}))
        return func(*read[0], **read[1])

    def numpy(self, *, force: bool = False) -> Any:
        return self.layer.dequantized(self.dtype).numpy(force=force)

    def __setitem__(self, *_: Any) -> None:  # would write into a view of the unpacked numbers
        raise _refusal()

    @property
    def data(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self

    @data.setter
    def data(self, _: Tensor) -> None:
        raise _refusal()


def _refusal() -> SurgeryError:
    return SurgeryError(
        "the weight of a quantized layer can't be changed in place; dequantize(model) of cadenza.algorithms "
        "gives its layers weights in floating point, into which adapters can be merged"
    )
