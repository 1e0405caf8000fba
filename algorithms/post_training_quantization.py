"""Post-training quantization: the weights of linear layers in 4 or 8 bits, in bitsandbytes' formats."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import Stage
from cadenza.surgery.linears import spared, untie, wanted
from cadenza.surgery.lowbit import FORMATS, require_library
from cadenza.surgery.parameters import leave_to_each_rank, set_attributes, store_instead
from cadenza.surgery.quantized_linear import Quantized
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, chain, mix

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(repr=False, eq=False)
class PostTrainingQuantization(Surgery):
    """Stores the weights of linear layers in few bits, as bitsandbytes does; they are frozen from then on.

    A weight takes 4.5 bits (nf4, fp4), 4.13 (-dq, double quantization; QLoRA, arXiv 2305.14314) or 8 (int8).
    Activations stay as they are, except by int8 in eval mode: there the input is rounded to int8 row by row,
    and its features of 6.0 or more stay as they are (LLM.int8, arXiv 2208.07339). In train mode int8 is
    weight-only, on every device, so the modes differ by about 0.8 % of an output.

    The codes are buffers: no optimizer holds them. A checkpoint of another format, or with a part of one,
    raises. Biases stay parameters, and LoRA on top trains.

    Args:
        format: `nf4`, `nf4-dq`, `fp4`, `fp4-dq` or `int8`.
        only: globs of the module paths to quantize, such as `*.mlp.*`, heads and tied layers among them. None
            is every `nn.Linear` but those. The report lists what was left as it is, and why.
        except_: globs of the paths to leave as they are; `except` in a recipe.
        compute_dtype: `float32`, `bfloat16` or `float16`; None is the dtype of the input, or autocast's.
        keep_original: keep the weights, and their memory, so that the report can undo this.
    """

    format: str = "nf4"
    only: list[str] | None = None
    except_: list[str] | None = None
    compute_dtype: str | None = None
    keep_original: bool = field(default=False, repr=False)
    stage = Stage.QUANTIZE

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise SurgeryError(f"quantization format {self.format!r} is not one of {', '.join(FORMATS)}")
        if self.compute_dtype not in (None, *DTYPES):
            raise SurgeryError(f"compute_dtype {self.compute_dtype!r} is not one of {', '.join(DTYPES)}")

    def prepare(self, model: nn.Module) -> None:
        require_library()
        self._spared = spared(model, type(self).__name__, heads=self.only is None)

    def edit(self, site: Site) -> Undo | None:
        module: Any = site.module
        if not isinstance(module, nn.Linear) or site.path in self._spared or not self._wants(site.path):
            return None
        stored = FORMATS[self.format].pack(_finite(site.path, module.weight))
        facts = {
            "storage": self.format,
            "stored_names": tuple(stored),
            "compute_dtype": self.compute_dtype,
            "bytes_before": module.weight.nbytes,
            "weight_error": _error(self.format, stored, module.weight),
        }
        return chain(
            partial(untie, site),
            partial(store_instead, module, "weight", stored),
            partial(set_attributes, module, **facts),
            partial(mix, module, Quantized),
        )

    def check(self, model: nn.Module, report: Report) -> None:
        report.skipped = {path: why for path, why in self._spared.items() if self._wants(path)}
        layers: Any = {p: m for p, m in model.named_modules() if isinstance(m, Quantized)}
        if not layers:
            return
        before = sum(m.bytes_before for m in layers.values())
        after = sum(m.stored_bytes for m in layers.values())
        report.notes.append(f"their weights: {before:,} bytes, now {after:,}")
        alike = [f"{path}.{name}" for path, m in layers.items() for name in m.stored_names]
        report._undos.append(leave_to_each_rank(model, alike))

    def operate(self, model: nn.Module, optimizers: Optimizer | Sequence[Optimizer] | None = None) -> Report:
        report = super().operate(model, optimizers)
        if not self.keep_original:
            report.seal("the weights weren't kept; keep_original=True keeps them")
        return report

    def sparing(self, paths: list[str]) -> Surgery:
        return replace(self, except_=[*(self.except_ or []), *paths]) if paths else self

    def _wants(self, path: str) -> bool:
        return wanted(path, self.only, self.except_)


def apply_post_training_quantization(
    model: nn.Module,
    format: str = "nf4",
    only: list[str] | None = None,
    except_: list[str] | None = None,
    compute_dtype: str | None = None,
    keep_original: bool = False,
    *,
    optimizers: Optimizer | list[Optimizer] | None = None,
) -> Report:
    """Store the weights of linear layers in few bits, in place; see `PostTrainingQuantization`.

    Raises:
        NoEffect: no linear layer that can be quantized, or none that is asked for.
        SurgeryError: bitsandbytes isn't installed, or a weight isn't finite.
    """
    surgery = PostTrainingQuantization(format, only, except_, compute_dtype, keep_original)
    return surgery.operate(model, optimizers)


def _finite(path: str, weight: Tensor) -> Tensor:
    """`weight` in a dtype that the library packs."""
    if not weight.is_meta and not weight.isfinite().all():
        raise SurgeryError(f"{path}: its weight isn't finite everywhere; nothing was quantized")
    return weight.detach().float() if weight.element_size() > 4 else weight.detach()


def _error(format: str, stored: dict[str, Tensor], weight: Tensor) -> float | None:
    """Relative error of the Frobenius norm."""
    if weight.is_meta:
        return None
    exact = weight.detach().float()
    wrong = FORMATS[format].unpack(tuple(stored.values()), weight.shape, exact.dtype) - exact
    return float(wrong.norm() / exact.norm()) if exact.any() else 0.0
