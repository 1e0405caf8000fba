"""Attention to a document and its anchor, combined in closed form, without a copy of the anchor.

For one query, s_0 is the score of the anchor and v_0 the anchor's value; O is the attention output over the
query's own document and lse the log-sum-exp of the scores there.

1. Torch's flash attention computes O and lse, by document.
2. `_merge` computes L = logaddexp(lse, s_0), p_0 = exp(s_0 - L) and the output (1 - p_0) O + p_0 v_0.
3. In the backward, torch's flash backward gets the merged output and L. It recomputes exp(s - L), the merged
   probabilities: its gradients of the document's part are right (Dao et al., arXiv 2205.14135, algorithm 4).
4. `_add_anchor` adds the gradients of the anchor's part, which has rank one.

The obvious way leaves the merge to autograd. It gives wrong gradients, because kernels leave out the gradient
through their log-sum-exp. The cost here: private operators of torch; no ALiBi, windows or dropout.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.documents import Documents

aten: Any = torch.ops.aten


class _Inputs(NamedTuple):
    """q (total, heads, head_dim), k and v (total, key_value_heads, head_dim), and the facts of the call."""

    q: Tensor
    k: Tensor
    v: Tensor
    documents: Documents
    causal: bool
    scale: float


def merged(call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's own flash attention by document, with the anchor merged in; shapes as in `sdpa.stock`."""
    scale = query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    qkv = (x.squeeze(0) for x in (query, key, value))
    function: Any = _Merged.apply
    return function(*qkv, call.documents, call.causal, scale)[None]


class _Merged(torch.autograd.Function):
    """The fields of `_Inputs` -> (total, heads, head_dim)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x = _Inputs(*inputs)
        out, lse, ctx.state = _forward(x)
        if x.documents.anchors:
            out, lse = _merge(x, out, lse)
        ctx.facts = x.documents, x.causal, x.scale
        ctx.save_for_backward(x.q, x.k, x.v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        x, grad = _Inputs(q, k, v, *ctx.facts), grads[0].contiguous()
        gradients = _backward(x, out, lse, grad, ctx.state)
        if x.documents.anchors:
            _add_anchor(gradients, x, out, lse, grad)
        return *gradients, None, None, None


def _merge(x: _Inputs, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Output (total, heads, head_dim) and log-sum-exp (total, heads) over the document and the anchor."""
    score = _anchor_score(x)
    whole = torch.logaddexp(lse, score)
    p = (score - whole).exp()[..., None]  # (total, heads, 1)
    v = _repeated(x.v, x.q)[x.documents.anchor_of_token]
    return ((1 - p) * out + p * v).to(out.dtype), whole


def _add_anchor(gradients: list[Tensor], x: _Inputs, out: Tensor, lse: Tensor, grad: Tensor) -> None:
    """Add the anchor's part to the `gradients` of q, k and v."""
    places, wide = x.documents.anchor_of_token, lse.dtype
    k, v = (_repeated(each, x.q)[places] for each in (x.k, x.v))  # the anchors', (total, heads, head_dim)
    p = (_anchor_score(x) - lse).exp()
    slope = x.scale * p * (grad.to(wide) * (v.to(wide) - out.to(wide))).sum(-1)  # of q k, (total, heads)
    gradients[0] += (slope[..., None] * k).to(gradients[0].dtype)
    _add_at_anchors(gradients[1], x.documents, slope[..., None] * x.q)
    _add_at_anchors(gradients[2], x.documents, p[..., None] * grad)


def _add_at_anchors(total: Tensor, documents: Documents, part: Tensor) -> None:
    """Add each token's row of `part` to the row of its anchor in `total`, a gradient of keys or values."""
    grouped = _summed(part, total)
    anchors, number = documents.once("anchors", lambda: documents.anchor_of_token.unique(return_inverse=True))
    sums = grouped.new_zeros(len(anchors), *grouped.shape[1:]).index_add_(0, number, grouped)
    total[anchors] += sums.to(total.dtype)


def _anchor_score(x: _Inputs) -> Tensor:
    """(tokens, heads), float32 or wider; -inf at anchors, which see themselves in their own document."""
    places = x.documents.anchor_of_token
    wide = torch.promote_types(x.q.dtype, torch.float32)
    score = x.scale * (x.q.to(wide) * _repeated(x.k, x.q)[places]).sum(-1)
    own = places == torch.arange(len(places), device=places.device)
    return score.masked_fill(own[:, None], -torch.inf)


def _repeated(x: Tensor, q: Tensor) -> Tensor:
    """Heads of keys or values, each repeated for the query heads of its group."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _summed(wide: Tensor, like: Tensor) -> Tensor:
    """The sum over the query heads of each group: (tokens, heads, ...) -> (tokens, key_value_heads, ...)."""
    return wide if wide.shape == like.shape else wide.unflatten(1, (like.shape[1], -1)).sum(2)


def _forward(x: _Inputs) -> tuple[Tensor, Tensor, Any]:
    """Output (tokens, heads, head_dim), log-sum-exp (tokens, heads), and a state that the backward takes."""
    if x.q.is_cuda:
        arguments = (*x[:3], *_varlen(x.documents), 0.0, x.causal, False)
        out, lse, *state = aten._flash_attention_forward(*arguments, scale=x.scale)
        return out, lse.T.contiguous(), state[:2]
    outputs = [
        aten._scaled_dot_product_flash_attention_for_cpu(*qkv, 0.0, x.causal, scale=x.scale)
        for qkv in _by_document(x.documents, *(_repeated(each, x.q) for each in x[:3]))
    ]
    out, lse = (_joined(parts) for parts in zip(*outputs, strict=True))
    return out, lse, None


def _backward(x: _Inputs, out: Tensor, lse: Tensor, grad: Tensor, state: Any) -> list[Tensor]:
    """The gradients of q, k and v of the documents, without the anchor."""
    if x.q.is_cuda:
        lse = lse.T.contiguous()  # (heads, total)
        arguments = (grad, *x[:3], out, lse, *_varlen(x.documents), 0.0, x.causal, *state)
        return list(aten._flash_attention_backward(*arguments, scale=x.scale))
    wide = (_repeated(each, x.q) for each in x[:3])
    parts = [
        aten._scaled_dot_product_flash_attention_for_cpu_backward(*part, 0.0, x.causal, scale=x.scale)
        for part in _by_document(x.documents, grad, *wide, out, lse)
    ]
    joined = map(_joined, zip(*parts, strict=True))
    return [_summed(gradient, like) for gradient, like in zip(joined, x[:3], strict=True)]


def _varlen(documents: Documents) -> tuple[Tensor, Tensor, int, int]:
    """The documents as arguments of a varlen kernel, for queries and keys."""
    return documents.cu_seqlens, documents.cu_seqlens, documents.longest, documents.longest


def _by_document(documents: Documents, *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """For each run of equally long documents, (documents, heads, length, ...) of each of `packed`."""
    for parts in zip(*map(documents.split, packed), strict=True):
        yield tuple(part.transpose(1, 2) for part in parts)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """(tokens, heads, ...): the inverse of `_by_document` for one tensor."""
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
