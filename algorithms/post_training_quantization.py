"""Post-training quantization: the weights of linear layers in 4 or 8 bits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from composer.algorithms import EMA
from composer.core import Event, State
from composer.loggers import Logger
from torch import nn

from cadenza.options import Choice, option
from cadenza.quantization.eligible import globs, ineligible, refuse_unmatched, untie, wanted
from cadenza.quantization.experts import expert_weights
from cadenza.quantization.stored.formats import FORMATS, packed, require_library
from cadenza.quantization.stored.grouped import Grouped
from cadenza.quantization.stored.quantized_linear import Quantized, dequantize
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import leave_to_each_rank, set_attributes, store_instead
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Stage, Undo, mix

__all__ = ["PostTrainingQuantization", "apply_post_training_quantization", "dequantize"]

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(repr=False, eq=False)
class PostTrainingQuantization(Surgery):
    """Stores the weights of linear layers in 4 or 8 bits, and freezes them.

    In the formats of bitsandbytes a weight takes 4.5 bits (nf4, fp4), 4.13 (-dq, double quantization; QLoRA,
    arXiv 2305.14314) or 8 (int8). The others need no library: int4 (4.16 bits, a scale and a zero point for
    128 weights), mxfp4 (4.25, OCP Microscaling v1.0), nvfp4 (4.5) and fp8 (8, E4M3, a scale for an output).
    For these there is no kernel, so each product unpacks the weight: they show what the format does to a
    model, not its speed. docs/formats.md has the rules and measured errors.

    Activations are quantized by int8 in eval mode alone: each row of the input is rounded to int8, but its
    features of 6.0 or more are not (LLM.int8, arXiv 2208.07339). In train mode int8 quantizes weights only,
    on every device, so the two modes differ by about 0.8 % of an output.

    The codes are buffers, so no optimizer holds them. A checkpoint of another format, or an incomplete one,
    raises when it is loaded. Biases stay parameters, and LoRA on top trains; `dequantize(model)` comes before
    its merging. Averages of buffers move the codes: Composer's EMA is refused, SWA copies them.

    Works on any model with `nn.Linear`, and on Falcon.
    """

    format: str = option("nf4", "How a weight is stored.", Choice(*FORMATS))
    only: str | list[str] | None = option(
        None,
        "A glob, or globs, of the module paths to quantize, such as `*.mlp.*`. null selects each "
        "`nn.Linear` that is not an output head and has no tied weight. The report lists skipped layers "
        "with reasons.",
    )
    except_: str | list[str] | None = option(
        None, "A glob, or globs, of the module paths to skip; `except` in a recipe."
    )
    compute_dtype: str | None = option(
        None, "The dtype of the products; null: that of the input, or autocast's.", Choice(*DTYPES)
    )
    keep_original: bool = option(
        False, "Whether to keep the original weights in memory, so that the report can undo this.", repr=False
    )
    stage = Stage.QUANTIZE
    _of_another_head = False  # loads with another head: a glob may match the old head alone

    def __post_init__(self) -> None:
        super().__post_init__()
        self.only, self.except_ = globs("only", self.only), globs("except", self.except_)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        if any(isinstance(algorithm, EMA) for algorithm in state.algorithms):
            raise SurgeryError("EMA would average the codes of quantized layers; leave it out, or choose SWA")
        super().apply(event, state, logger)

    def survey(self, model: nn.Module) -> dict[str, str]:
        """The ineligible layers: path and reason."""
        require_library(self.format)
        for name in () if self._of_another_head else ("only", "except_"):
            refuse_unmatched(model, name.removesuffix("_"), getattr(self, name))
        return ineligible(model, type(self).__name__, heads=self.only is None)

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if not isinstance(module, nn.Linear) or site.path in site.survey or not self._wants(site.path):
            return
        stored, error = packed(site.path, self.format, module.weight)
        attributes = {
            "storage": self.format,
            "stored_names": tuple(stored),
            "compute_dtype": self.compute_dtype,
            "weight_dtype": module.weight.dtype,
            "bytes_before": module.weight.nbytes,
            "weight_error": error,
        }
        yield from untie(site)
        yield store_instead(module, "weight", stored)
        yield set_attributes(module, **attributes)
        yield mix(module, Quantized)

    def finish(self, report: Report, survey: dict[str, str]) -> Iterator[Undo]:
        skipped = {**survey, **expert_weights(report.model)}
        report.skipped = {path: why for path, why in skipped.items() if self._wants(path)}
        layers: Any = {p: m for p, m in report.model.named_modules() if isinstance(m, Quantized)}
        if not layers:
            return
        before = sum(m.bytes_before for m in layers.values())
        after = sum(m.stored_bytes for m in layers.values())
        report.notes.append(f"their weights: {before:,} bytes, now {after:,}; {_left(report.model)}")
        if isinstance(FORMATS[self.format], Grouped):
            report.notes.append(
                f"simulated: no kernel here multiplies {self.format}; each product unpacks the weight"
            )
        buffers = [f"{path}.{name}" for path, m in layers.items() for name in m.stored_names]
        yield leave_to_each_rank(report.model, buffers)

    def irreversible(self) -> str:
        return "" if self.keep_original else "the weights weren't kept; keep_original=True keeps them"

    def excluding(self, paths: list[str]) -> Surgery:
        except_ = [*(globs("except", self.except_) or []), *paths]
        surgery = replace(self, except_=except_ if paths else self.except_)
        surgery._of_another_head = True
        return surgery

    def _wants(self, path: str) -> bool:
        return wanted(path, globs("only", self.only), globs("except", self.except_))


def apply_post_training_quantization(
    model: nn.Module,
    format: str = "nf4",
    only: str | list[str] | None = None,
    except_: str | list[str] | None = None,
    compute_dtype: str | None = None,
    keep_original: bool = False,
    *,
    optimizers: Optimizers = None,
) -> Report:
    """Store the weights of linear layers in few bits, in place; see `PostTrainingQuantization`.

    Raises:
        NoEffect: no linear layer is eligible and selected.
        SurgeryError: an option is invalid, bitsandbytes, which the format needs, isn't installed, or a
            weight isn't finite.
    """
    surgery = PostTrainingQuantization(format, only, except_, compute_dtype, keep_original)
    return surgery.operate(model, optimizers)


def _left(model: nn.Module) -> str:
    """What the report says of training: the quantized weights are frozen, others aren't."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    others = f"{trained:,} other parameters still train" if trained else "nothing is left to train"
    return f"they are frozen, and {others}"
