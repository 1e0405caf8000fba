"""ALiBi: attention with linear biases in place of positions."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.modules import is_attention, is_cross_attention
from cadenza.attention.plan import claim
from cadenza.attention.proof.claims import mixes_by_attention
from cadenza.attention.proof.positions import forgets_positions, ignores_position_ids
from cadenza.attention.rotary.unlearned import take_positions
from cadenza.attention.rotary.unrotated import WithoutRotation
from cadenza.attention.technique import AttentionSurgery
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, mix, stock_class

__all__ = ["ALiBi", "apply_alibi"]


@dataclass(repr=False, eq=False)
class ALiBi(AttentionSurgery):
    """Adds `-slope * |i - j|` to the attention scores in place of the model's own positions.

    Attention stays symmetric in encoders (MosaicBERT, arXiv 2312.17482) and causal in decoders (Press et al.,
    arXiv 2108.12409). Learned position embeddings are removed; rotary embeddings no longer rotate. The bias
    is computed at run time: there is no buffer and no state-dict key, and a sequence may be longer than
    `max_position_embeddings`.

    Use it when pretraining from scratch: the model learns faster early on and extrapolates in length. It
    costs about 1 % time. A pretrained model has to be trained again, because its positions are gone.

    Works on any encoder or decoder with learned or rotary positions, whose tokens meet in attention alone
    (docs/families.md).
    """

    claims = (mixes_by_attention, ignores_position_ids, forgets_positions)

    def edit(self, site: Site) -> Iterator[Undo]:
        module = site.module
        if is_attention(module):
            if not is_cross_attention(module):
                yield claim(module, positions=AlibiBias())
        elif stock_class(module).__name__.endswith("RotaryEmbedding"):
            yield mix(module, WithoutRotation)
        else:
            yield from take_positions(site.path, module)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        removed = ("NoPositions", "WithoutRotation")
        if report.changes and not any(c.after.startswith(removed) for c in report.changes):
            raise SurgeryError(
                "ALiBi found attention but neither a table of learned positions (position_embeddings, "
                "wpe) nor rotary embeddings to remove: the model would keep its own positions"
            )
        return super().finish(report, survey)


def apply_alibi(model: nn.Module, *, optimizers: Optimizers = None, prove: bool = True) -> Report:
    """Give `model` ALiBi in place of its positions, in place; see `ALiBi`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: the model has neither learned nor rotary positions; or a model of no tested family can't
            prove that no position remains and that all attention gets the bias.
    """
    return ALiBi(prove=prove).operate(model, optimizers)


def alibi_slopes(num_heads: int, device: torch.device | str = "cpu") -> Tensor:
    """The slope of each head, (num_heads,) float64.

    For n = 2^k heads slope i is 2^(-8 i / n), i = 1 ... n. For other numbers: the slopes of the next
    lower power of two, then every second one of the next higher (Press et al., section 3).
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    steps = torch.arange(num_heads, dtype=torch.float64, device=device)  # no copy from the host
    between = steps[: num_heads - lower] + 0.5
    return torch.pow(2.0, torch.cat([steps[:lower] + 1, between]) * (-8 / lower))


@dataclass(frozen=True)
class AlibiBias:
    """The bias `-slope * |i - j|` (heads, q, k); query i of q is at position k - q + i.

    Positions count from the last key. That is also right for cached keys of any layout: under a causal mask
    the softmax depends only on differences within a row.
    """

    slopes = staticmethod(alibi_slopes)  # for kernels that add the bias themselves

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        num_heads, q, k = query.shape[-3], query.shape[-2], key.shape[-2]
        # At least float32, because bfloat16 can't count beyond 256.
        dtype = torch.promote_types(query.dtype, torch.float32)
        positions = torch.arange(k, device=query.device, dtype=dtype)
        distance = (positions[None, :] - positions[k - q :, None]).abs()  # (q, k)
        slopes = self.slopes(num_heads, query.device).to(dtype)
        return (-slopes[:, None, None] * distance).to(query.dtype)

    def __repr__(self) -> str:
        return "alibi"
