"""A linear layer whose weight stands in few bits."""

from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.autocast import autocast_dtype
from cadenza.surgery.lowbit import FORMATS, Product


class Quantized:
    """The mixin of a quantized `nn.Linear`: its weight is made of the buffers `stored_names`.

    Attributes of the module: `storage` (the format's name), `stored_names`, `compute_dtype` (a name or None),
    `bytes_before`, and `weight_error` (relative, of the Frobenius norm; None on meta).
    """

    def forward(self, input: Tensor) -> Tensor:
        out_dtype = autocast_dtype(input) or input.dtype
        dtype = getattr(torch, self.compute_dtype) if self.compute_dtype else out_dtype
        whole = self.training and self.storage == "int8"
        out: Any = Product.apply(input.to(dtype), self.storage, self.shape, whole, *self._stored())
        if self.bias is not None:
            out = out + self.bias.to(dtype)
        return out.to(out_dtype)

    @property
    def shape(self) -> torch.Size:
        """(out, in)."""
        return torch.Size((self.out_features, self.in_features))

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight (out, in) that the layer computes with."""
        return FORMATS[self.storage].unpack(self._stored(), self.shape, dtype)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the codes and their statistics."""
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
        """All that makes the weight, or an error, in loads that aren't strict, too.

        Codes with other statistics would be another matrix, of which nobody is told.
        """
        given = {k: v for k, v in state_dict.items() if k.startswith(prefix) and k != prefix + "bias"}
        own = dict(zip((prefix + name for name in self.stored_names), self._stored(), strict=True))
        wrong = [key for key in {**own, **given} if not _same_kind(own.get(key), given.get(key))]
        if given and wrong:
            theirs = ", ".join(map(_kind, given.items()))
            lists[-1].append(f"{prefix[:-1]} is in {self.storage}, made of {', '.join(own)}; found {theirs}")
            return
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *lists)


def _same_kind(own: Tensor | None, given: Tensor | None) -> bool:
    return own is not None and given is not None and own.dtype == given.dtype and own.shape == given.shape


def _kind(entry: tuple[str, Tensor]) -> str:
    key, tensor = entry
    return f"{key} ({tensor.dtype}, {tuple(tensor.shape)})"
