"""FlashAttention: the choice of the kernel that computes attention."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cadenza.attention.kernels.table import KERNELS
from cadenza.attention.modules import base_models, is_attention, is_cross_attention
from cadenza.attention.plan import claim
from cadenza.attention.proof.claims import (
    kernel_has_features,
    masks_are_known,
    mixes_by_attention,
    rows_equal_stock,
)
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Choice, option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo

__all__ = ["FlashAttention", "apply_flash_attention"]


@dataclass(repr=False, eq=False)
class FlashAttention(AttentionSurgery):
    """Computes attention by document, without padding, on a chosen kernel.

    FlashAttention (Dao et al., arXiv 2205.14135) keeps the scores on chip. Each attention layer gathers the
    tokens of a batch and scatters the result; with `unpadding` that happens once for all layers.

    Works on any encoder or decoder whose tokens meet in attention alone (docs/families.md). With `auto` a
    call that can't be computed by document, such as one with a cache, is left to the stock code, with a
    warning; a kernel asked for by name refuses it.
    """

    kernel: str = option(
        "auto",
        "`flash` (flash-attn 2, CUDA), `varlen` (the FlashAttention 2 in torch, CUDA), `triton` (ours, with "
        "ALiBi, CUDA), `flex` (FlexAttention, CUDA), `fa4` (FlexAttention on FlashAttention 4, CUDA), `sdpa` "
        "(the model's own kernel, called for each run of equally long documents), or `auto`: the first of "
        "flash, varlen, triton, flex and sdpa that supports the call. `python -m cadenza.attention.kernels` "
        "prints what each kernel supports.",
        Choice("auto", *KERNELS),
    )
    keeps_outputs = True
    claims = (mixes_by_attention, masks_are_known, kernel_has_features, rows_equal_stock)

    def survey(self, model: nn.Module) -> None:
        missing = None if self.kernel == "auto" else KERNELS[self.kernel].missing()
        if missing:
            raise SurgeryError(
                f"flash_attention kernel {self.kernel!r} needs {missing}, which isn't installed"
            )

    def edit(self, site: Site) -> Iterator[Undo]:
        module = site.module
        if module in base_models(module) or (is_attention(module) and not is_cross_attention(module)):
            yield claim(module, kernel=self.kernel)


def apply_flash_attention(
    model: nn.Module, kernel: str = "auto", *, optimizers: Optimizers = None, prove: bool = True
) -> Report:
    """Let `kernel` compute the attention of `model`, in place; see `FlashAttention`.

    Device, dtype and dropout are checked at the first batch.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: the kernel is unknown, or its package isn't installed; or a model of no tested family
            can't prove that its outputs stay equal.
    """
    return FlashAttention(kernel, prove=prove).operate(model, optimizers)
