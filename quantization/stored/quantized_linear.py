"""A linear layer with a weight stored in few bits."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cadenza.quantization.stored.formats import FORMATS
from cadenza.quantization.stored.stored_weight import StoredWeight
from cadenza.surgery.errors import NoEffect, SurgeryError
from cadenza.surgery.ledger import leave
from cadenza.surgery.retype import Mixin, Stage, unmix
from cadenza.surgery.runtime import autocast_dtype
from cadenza.surgery.saving import stop_saving


class Product(torch.autograd.Function):
    """x times the transposed matrix of format `name`; forward unpacks it if `unpack`, backward always.

    Both compute in the dtype of x: autocast is off within.
    """

    @staticmethod
    def forward(x: Tensor, name: str, shape: Sequence[int], unpack: bool, *stored: Tensor) -> Tensor:
        form, shape = FORMATS[name], torch.Size(shape)  # torch.func passes tuples
        with _no_autocast(x):
            if unpack or x.is_meta:
                return F.linear(x, form.unpack(stored, shape, x.dtype))
            return form.product(x, stored, shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, name, shape, _, *stored = inputs
        ctx.save_for_backward(*stored)
        ctx.matrix = name, torch.Size(shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (name, shape), (grad,) = ctx.matrix, grads
        stored = ctx.saved_tensors  # read once: non-reentrant checkpointing unpacks them once
        with _no_autocast(grad):
            back = grad @ FORMATS[name].unpack(stored, shape, grad.dtype)
        return back, None, None, None, *[None] * len(stored)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple[Tensor, int]:
        x, *matrix = inputs
        if any(dim is not None for dim in in_dims[4:]):
            raise SurgeryError("vmap over the codes of a quantized layer isn't supported, only over inputs")
        return Product.apply(x.movedim(in_dims[0], 0), *matrix), 0  # pyright: ignore[reportReturnType]


def _no_autocast(x: Tensor) -> AbstractContextManager:
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class Quantized(Mixin, of="post_training_quantization", stage=Stage.QUANTIZE):
    """The mixin of a quantized `nn.Linear`; buffers replace the weight.

    Attributes of the module: `storage` (the name of the format), `stored_names` (of the buffers),
    `compute_dtype` (a name or None), `weight_dtype` (the dtype that the weight would have now),
    `bytes_before`, and `weight_error` (the Frobenius norm of the error, relative to that of the weight; None
    on meta).
    """

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            raise SurgeryError(
                "torch.jit.trace can't trace a quantized layer; use torch.export or torch.compile"
            )
        out_dtype = self._out_dtype(input)
        dtype = getattr(torch, self.compute_dtype) if self.compute_dtype else out_dtype
        weight_only = self.training and self.storage == "int8"
        out: Any = Product.apply(input.to(dtype), self.storage, self.shape, weight_only, *self._stored())
        if self.bias is not None:
            out = out + self.bias.to(dtype)
        return out.to(out_dtype)

    def _out_dtype(self, x: Tensor) -> torch.dtype:
        """As in stock layers, autocast leaves float64 alone."""
        return x.dtype if x.dtype == torch.float64 else autocast_dtype(x) or x.dtype

    @property
    def weight(self) -> Tensor:
        """The weight (out, in) to read; on meta the codes, whose shape transformers compares as it loads."""
        codes: Tensor = self._buffers["weight"]
        return codes if codes.is_meta else StoredWeight.of(self)

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

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.weight_dtype = fn(torch.empty(0, dtype=self.weight_dtype)).dtype
        return super()._apply(fn, recurse)

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


ATTRIBUTES = ("storage", "stored_names", "compute_dtype", "weight_dtype", "bytes_before", "weight_error")


def dequantize(model: nn.Module) -> int:
    """Give the layers in few bits weights in floating point again; returns their number.

    A weight has the numbers that the layer computed with, the dtype of the weight before its quantization, or
    after casts of the model, and no gradient. Adapters can be merged then. The report of the quantization
    can't be undone any more.

    Raises:
        NoEffect: no layer is in few bits.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Quantized)]
    if not layers:
        raise NoEffect(f"dequantize found no quantized layer in {type(model).__name__}")
    for layer in layers:
        weight = nn.Parameter(layer.dequantized(layer.weight_dtype), requires_grad=False)
        for name in layer.stored_names:
            del layer._buffers[name]
        parameters = {"weight": weight, **layer._parameters}  # in the stock order
        layer._parameters.clear()
        layer._parameters.update(parameters)
        for name in ATTRIBUTES:
            delattr(layer, name)
        unmix(layer, Quantized)
        leave(layer, "PostTrainingQuantization")
    stop_saving(model)
    return len(layers)


def _kind(tensor: Tensor) -> str:
    return f"({tensor.dtype}, {tuple(tensor.shape)})"
