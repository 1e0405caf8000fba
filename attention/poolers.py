"""Poolers of base models: whether they read the first token, and what they return for documents."""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.documents import Documents
from cadenza.probes.untouched import untouched
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import is_stock, stock_class

POOLERS = ("BertPooler", "RobertaPooler", "XLMRobertaPooler")


def refuse_other_poolers(base: Any, path: str) -> None:
    """Raise if `base`, at `path` of its model, has a pooler that reads more than the first token."""
    pooler = getattr(base, "pooler", None)
    if pooler is None or isinstance(pooler, nn.Linear) or is_stock(pooler, *POOLERS):
        return
    if not _reads_first_token(pooler, base):
        raise SurgeryError(f"{path}.pooler: {type(pooler).__name__} is not a pooler of the first token")


def pooled(model: Any, hidden: Tensor) -> Tensor:
    """The pooled output of `hidden` (batch, length, hidden)."""
    if getattr(model, "pooler", None) is None:
        name = stock_class(model).__name__
        raise SurgeryError(f"pooler_output of {name} comes from no pooler of the first token")
    if isinstance(model.pooler, nn.Linear):  # ALBERT
        return model.pooler_activation(model.pooler(hidden[:, 0]))
    return model.pooler(hidden)


def pooled_documents(model: Any, documents: Documents, hidden: Tensor) -> Tensor:
    """(documents, hidden), the pooled output of each document in `hidden` (batch, length, hidden)."""
    starts = documents.cu_seqlens[:-1].long()
    return pooled(model, documents.gather(hidden)[0].index_select(0, starts)[:, None])


def _reads_first_token(pooler: nn.Module, base: Any) -> bool:
    """Whether `pooler` returns the same without all tokens but the first, on numbers that differ."""
    weight = next(base.parameters())
    with untouched(pooler), torch.no_grad():
        pooler.eval()
        numbers = torch.arange(2 * 3 * base.config.hidden_size, dtype=torch.float64).sin()
        hidden = numbers.view(2, 3, -1).to(weight.device, weight.dtype)
        try:
            return torch.allclose(pooler(hidden), pooler(hidden[:, :1]), rtol=1e-2)
        except Exception:  # an unknown pooler may raise anything; on meta there is nothing to compare
            return False
