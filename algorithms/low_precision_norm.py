"""Low-precision norms: LayerNorm and RMSNorm in the autocast dtype."""

import copy
import inspect
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event, Precision, State
from composer.loggers import Logger
from torch import Tensor, nn
from torch.nn import Parameter

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, mix, stock_class
from cadenza.surgery.runtime import autocast_dtype

__all__ = ["LowPrecisionNorm", "apply_low_precision_norm"]


@dataclass(repr=False, eq=False)
class LowPrecisionNorm(Surgery):
    """Computes LayerNorm and RMSNorm in the autocast dtype, where autocast alone takes float32.

    Input, weight and result are bfloat16 (float16); the kernel still sums mean and variance in float32. This
    saves memory traffic, about 10 % of a MosaicBERT step on a GPU. Without CPU or CUDA autocast it changes
    nothing, and float64 stays float64. A norm of transformers is changed if it computes what torch's
    LayerNorm or RMSNorm does, which a random input shows. Others, as Gemma's, which multiplies by 1 + weight,
    are left as they are, and `report.skipped` names them.

    Works on any model with `nn.LayerNorm`, `nn.RMSNorm`, or norms of transformers that compute the same, as
    those of Llama, Mistral, Mixtral, Qwen2, Qwen3, OLMo2, Phi-3, GLM, T5 and Cohere.
    """

    stage = Stage.PRECISION
    keeps_outputs = True

    def survey(self, model: nn.Module) -> dict[nn.Module, type[Mixin] | str]:
        """For each norm the mixin that computes it, or the reason why none does."""
        return {module: _mixin(module) for module in model.modules() if _is_norm(module)}

    def edit(self, site: Site) -> Iterator[Undo]:
        if isinstance(found := site.survey.get(site.module), type):
            yield mix(site.module, found)

    def finish(self, report: Report, survey: dict[nn.Module, type[Mixin] | str]) -> Iterator[Undo]:
        why = {path: survey.get(module) for path, module in report.model.named_modules()}
        report.skipped |= {path: reason for path, reason in why.items() if isinstance(reason, str)}
        return iter(())

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        super().apply(event, state, logger)
        if state.precision == Precision.FP32:
            message = "LowPrecisionNorm acts under autocast; with precision fp32 it changes no number"
            warnings.warn(NoEffectWarning(message), stacklevel=2)


def apply_low_precision_norm(model: nn.Module, *, optimizers: Optimizers = None) -> Report:
    """Run the norms of `model` in the autocast dtype, in place; see `LowPrecisionNorm`.

    Raises:
        NoEffect: the model contains no norm that computes what torch's do.
    """
    return LowPrecisionNorm().operate(model, optimizers)


class LowPrecision(Mixin, of="low_precision_norm", stage=Stage.PRECISION, replaces=True):
    """A norm that computes in the autocast dtype while autocast is on: a LayerNorm, or by the RMS."""

    centred = False
    knows = ("rms_norm",)

    def forward(self, x: Tensor) -> Tensor:
        dtype, weight = autocast_dtype(x), self.weight
        if dtype is None or (weight is not None and weight.dtype == torch.float64):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            bias = _cast(getattr(self, "bias", None), dtype)
            return _normalized(self, x.to(dtype), _cast(weight, dtype), bias, self.centred)


class LowPrecisionCentred(LowPrecision):
    """The same for a LayerNorm that isn't a subclass of torch's."""

    centred = True


def _normalized(norm: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, centred: bool) -> Tensor:
    shape = norm.normalized_shape if isinstance(norm, nn.LayerNorm | nn.RMSNorm) else norm.weight.shape
    if centred or (isinstance(norm, nn.LayerNorm) and not hasattr(norm, "by_rms")):
        return F.layer_norm(x, shape, weight, bias, _eps(norm))
    return F.rms_norm(x, shape, weight, _eps(norm))


def _is_norm(module: nn.Module) -> bool:
    """Whether `module` is a norm by name or class; torch's norms over a batch or over groups don't count."""
    stock = stock_class(module)
    if stock.__module__.startswith("torch.nn."):
        return stock in (nn.LayerNorm, nn.RMSNorm)
    named = "norm" in stock.__name__.lower() and not any(module.children())
    return named or isinstance(module, nn.LayerNorm | nn.RMSNorm)


def _mixin(norm: Any) -> type[Mixin] | str:
    """The mixin that computes what `norm` does, or the reason why there is none."""
    stock: Any = stock_class(norm)
    if stock in (nn.LayerNorm, nn.RMSNorm):
        return LowPrecision
    if not stock.__module__.startswith("transformers.models."):
        return f"{stock.__name__} is a class of neither torch nor transformers"
    parameters = {name: p for name, p in norm._parameters.items() if p is not None}
    known = "weight" in parameters and parameters.keys() <= {"weight", "bias"} and not norm._buffers
    if not known or any(p.ndim != 1 for p in parameters.values()) or not isinstance(_eps(norm), float):
        return f"{stock.__name__} has other parameters than an eps and a weight of one dimension"
    if len(inspect.signature(stock.forward).parameters) != 2:
        return f"{stock.__name__} takes more than one input"
    with torch.device("cpu"):  # the default may be meta, while a model is loaded
        return _by_example(norm, stock, parameters)


def _by_example(norm: Any, stock: Any, parameters: dict[str, Parameter]) -> type[Mixin] | str:
    """The mixin that gives what `norm` gives on a random input with random parameters, on the CPU."""
    generator, eps = torch.Generator().manual_seed(0), _eps(norm)
    drawn = {name: Parameter(torch.randn(p.shape, generator=generator)) for name, p in parameters.items()}
    probe = copy.copy(norm)
    probe.__class__, probe._parameters = stock, drawn
    scales = torch.tensor([eps**0.5, 1.0, 100.0])[:, None, None]  # eps counts at the first one
    x = scales * torch.randn(3, 5, len(drawn["weight"]), generator=generator)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
            found = stock.forward(probe.train(), x).double()
    except Exception as error:
        return f"{stock.__name__} fails on a random input ({type(error).__name__})"
    exact = x.double(), drawn["weight"].double(), _cast(drawn.get("bias"), torch.float64)
    for mixin in (LowPrecision, LowPrecisionCentred):
        expected = _normalized(probe, *exact, mixin.centred)
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-5, atol=1e-5):
            return mixin
    return f"{stock.__name__} computes another function than LayerNorm and RMSNorm"


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _eps(norm: Any) -> Any:
    return getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
