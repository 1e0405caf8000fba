"""ALiBi: attention with linear biases in place of positions."""

import inspect
import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cadenza.surgery.attention import claim, is_attention, is_cross_attention
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.parameters import set_attributes, take_parameter
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo, chain, mix, stock_class
from cadenza.surgery.seam import AttentionSurgery


@dataclass(repr=False, eq=False)
class ALiBi(AttentionSurgery):
    """Adds `-slope * |i - j|` to the attention scores and takes the model's own positions away.

    Symmetric in encoders (MosaicBERT, arXiv 2312.17482), causal in decoders (Press et al., arXiv
    2108.12409). Learned position tables leave the sum and the parameters; rotary embeddings stop
    rotating. The bias is computed at run time: no buffer, no state-dict key, any length, beyond
    `max_position_embeddings` too.

    Use it when pretraining from scratch: it learns faster early on and extrapolates in length. It costs
    about 1 % time. A pretrained model has to be trained again: its positions are gone.

    Works on BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, ModernBERT, Llama, Qwen, Mistral and GPT-2, and
    any other model on the attention interface with a `position_embeddings` table or rotary embeddings.
    """

    def edit(self, site: Site) -> Undo | None:
        module = site.module
        if is_attention(module):
            return None if is_cross_attention(module) else claim(module, bias=AlibiBias())
        if _is_position_table(site.path, module):
            return _empty(module)
        if isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return mix(module, WithoutPositions)
        if stock_class(module).__name__.endswith("RotaryEmbedding"):
            return mix(module, WithoutRotation)
        return None

    def check(self, model: nn.Module, report: Report) -> None:
        removed = ("NoPositions", "WithoutRotation")
        if report.changes and not any(c.after.startswith(removed) for c in report.changes):
            raise SurgeryError(
                "ALiBi found attention but neither a table of learned positions (position_embeddings, "
                "wpe) nor rotary embeddings to take away: the model would keep its own positions"
            )


def apply_alibi(model: nn.Module, *, optimizers: Optimizer | list[Optimizer] | None = None) -> Report:
    """Give `model` ALiBi in place of its positions, in place; see `ALiBi`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: its positions are of a kind that can't be taken away.
    """
    return ALiBi().operate(model, optimizers)


def alibi_slopes(num_heads: int, device: torch.device | str = "cpu") -> Tensor:
    """The slope of each head, (num_heads,) float64.

    For n = 2^k heads slope i is 2^(-8 i / n), i = 1 ... n. For other numbers: the slopes of the next
    lower power of two, then every second one of the next higher (Press et al., section 3).
    """
    lower = 2 ** math.floor(math.log2(num_heads))
    exponents = [-8 * i / lower for i in range(1, lower + 1)]
    exponents += [-4 * i / lower for i in range(1, 2 * (num_heads - lower), 2)]
    return torch.exp2(torch.tensor(exponents, dtype=torch.float64, device=device))


@dataclass(frozen=True)
class AlibiBias:
    """`-slope * |i - j|`, counted from the last key: query i of q stands at position k - q + i.

    Under a causal mask only differences within a row matter to the softmax, so this holds for cached
    keys of any layout as well.
    """

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        num_heads, q, k = query.shape[-3], query.shape[-2], key.shape[-2]
        # In float32 at least: bfloat16 counts to 256.
        dtype = torch.promote_types(query.dtype, torch.float32)
        at = torch.arange(k, device=query.device, dtype=dtype)
        distance = (at[None, :] - at[k - q :, None]).abs()
        slopes = self.slopes(num_heads, query.device).to(dtype)
        return (-slopes[:, None, None] * distance).to(query.dtype)

    def slopes(self, num_heads: int, device: torch.device) -> Tensor:
        """(num_heads,) float64, for kernels that add the bias themselves."""
        return alibi_slopes(num_heads, device)

    def __repr__(self) -> str:
        return "alibi"


class NoPositions:
    """A position table without rows: it adds zero, whatever the position."""

    def forward(self, position_ids: Tensor) -> Tensor:
        # A 0-dim zero broadcasts over any length and promotes no dtype.
        return torch.zeros((), device=position_ids.device)


class WithoutPositions:
    """Embeddings that don't look positions up, and so have no longest sequence."""

    def forward(self, *args, **kwargs) -> Tensor:
        stock_forward = super().forward
        bound = inspect.signature(stock_forward).bind(*args, **kwargs)
        given = bound.arguments
        tokens = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        given["position_ids"] = torch.zeros((1, tokens.shape[1]), dtype=torch.long, device=tokens.device)
        return stock_forward(*bound.args, **bound.kwargs)


class WithoutRotation:
    """Rotary embeddings that turn by the angle zero."""

    def forward(self, *args, **kwargs) -> tuple[Tensor, Tensor]:
        cos, sin = super().forward(*args, **kwargs)
        return torch.ones_like(cos), torch.zeros_like(sin)


def _is_position_table(path: str, module: nn.Module) -> bool:
    learned = path.rpartition(".")[2] in ("position_embeddings", "wpe")
    return learned and isinstance(module, nn.Embedding)


def _empty(table: nn.Module) -> Undo:
    initialized = partial(set_attributes, table, _is_hf_initialized=True)  # transformers then draws no weight
    return chain(initialized, partial(take_parameter, table, "weight"), partial(mix, table, NoPositions))
