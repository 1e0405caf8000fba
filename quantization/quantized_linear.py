"""A linear layer with a weight stored in few bits."""

from typing import Any

import torch
from torch import Tensor

from cadenza.quantization.formats import FORMATS, Product
from cadenza.surgery.retype import Mixin, Stage
from cadenza.surgery.runtime import autocast_dtype


class Quantized(Mixin, of="post_training_quantization", stage=Stage.QUANTIZE):
    """The mixin of a quantized `nn.Linear`; buffers replace the weight.

    Attributes of the module: `storage` (the name of the format), `stored_names` (of the buffers),
    `compute_dtype` (a name or None), `bytes_before`, and `weight_error` (the Frobenius norm of the error,
    relative to that of the weight; None on meta).
    """

    def forward(self, input: Tensor) -> Tensor:
        out_dtype = autocast_dtype(input) or input.dtype
        dtype = getattr(torch, self.compute_dtype) if self.compute_dtype else out_dtype
        weight_only = self.training and self.storage == "int8"
        out: Any = Product.apply(input.to(dtype), self.storage, self.shape, weight_only, *self._stored())
        if self.bias is not None:
            out = out + self.bias.to(dtype)
        return out.to(out_dtype)

    @property
    def shape(self) -> torch.Size:
        """(out, in)."""
        return torch.Size((self.out_features, self.in_features))

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight (out, in) with which the layer computes."""
        return FORMATS[self.storage].unpack(self._stored(), self.shape, dtype)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the codes and their statistics."""
        return sum(tensor.nbytes for tensor in self._stored())

    def _stored(self) -> list[Tensor]:
        return [self._buffers[name] for name in self.stored_names]

    def extra_repr(self) -> str:
        error = "" if self.weight_error is None else f", error {self.weight_error:.2%}"
        bits = 8 * self.stored_bytes / self.shape.numel()
        return f"{super().extra_repr()}, {self.storage}, {bits:.2f} bits a weight{error}"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        """Load all buffers of the weight or report an error, even if the load isn't strict.

        Codes with the statistics of another weight would silently be a third matrix.
        """
        found = {k: v for k, v in state_dict.items() if k.startswith(prefix) and k != prefix + "bias"}
        own = dict(zip((prefix + name for name in self.stored_names), self._stored(), strict=True))
        if found and {k: _kind(v) for k, v in found.items()} != {k: _kind(v) for k, v in own.items()}:
            theirs = ", ".join(f"{key} {_kind(tensor)}" for key, tensor in found.items())
            lists[-1].append(f"{prefix[:-1]} is in {self.storage}, made of {', '.join(own)}; found {theirs}")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)


def _kind(tensor: Tensor) -> str:
    return f"({tensor.dtype}, {tuple(tensor.shape)})"
