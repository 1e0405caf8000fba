"""Attention to a document and an anchor, merged in closed form: no copy of the anchor is made.

With s_0 the anchor's score, lse the document's log-sum-exp and O its output, L = logaddexp(lse, s_0) and
p_0 = exp(s_0 - L), the whole is (1 - p_0) O + p_0 v_0. A flash backward that is given the merged output and L
recomputes exp(s - L), which are the merged probabilities, so it gives the document's part of the gradients
(Dao et al., arXiv 2205.14135, algorithm 4); autograd through a kernel's own log-sum-exp would not, since
kernels leave out the gradient through it. The anchor's part is of rank one.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cadenza.surgery.documents import Documents
from cadenza.surgery.varlen import Varlen

aten: Any = torch.ops.aten


class _Inputs(NamedTuple):
    """Each (total, heads, head_dim); fewer heads of key and value are shared by groups."""

    q: Tensor
    k: Tensor
    v: Tensor
    documents: Documents
    causal: bool
    scale: float


def merged(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's own flash attention by document, its anchor merged in; shapes as in `varlen.stock`."""
    scale = query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    qkv = (x.squeeze(0) for x in (query, key, value))
    function: Any = _Merged.apply
    return function(*qkv, call.documents, call.causal, scale)[None]


class _Merged(torch.autograd.Function):
    """(total, heads, head_dim) in and out."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x = _Inputs(*inputs)
        out, lse, ctx.state = _forward(x)
        if x.documents.anchors:
            out, lse = _merge(x, out, lse)
        ctx.how = x.documents, x.causal, x.scale
        ctx.save_for_backward(x.q, x.k, x.v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        x, grad = _Inputs(q, k, v, *ctx.how), grads[0].contiguous()
        own = _backward(x, out, lse, grad, ctx.state)
        if x.documents.anchors:
            _add_anchor(own, x, out, lse, grad)
        return *own, None, None, None


def _merge(x: _Inputs, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    score = _anchor_score(x)
    whole = torch.logaddexp(lse, score)
    share = (score - whole).exp()[..., None]
    front = _of_heads(x.v, x.q)[x.documents.anchor_of_token]
    return ((1 - share) * out + share * front).to(out.dtype), whole


def _add_anchor(own: list[Tensor], x: _Inputs, out: Tensor, lse: Tensor, grad: Tensor) -> None:
    """Add the anchor's part to the gradients `own` of q, k and v."""
    places, wide = x.documents.anchor_of_token, lse.dtype
    k0, v0 = (_of_heads(front, x.q)[places] for front in (x.k, x.v))
    share = (_anchor_score(x) - lse).exp()
    slope = x.scale * share * (grad.to(wide) * (v0.to(wide) - out.to(wide))).sum(-1)
    own[0] += (slope[..., None] * k0).to(own[0].dtype)
    _scatter(own[1], x.documents, slope[..., None] * x.q)
    _scatter(own[2], x.documents, share[..., None] * grad)


def _scatter(total: Tensor, documents: Documents, part: Tensor) -> None:
    """Add (tokens, heads, head_dim) to the anchors' rows of (tokens, key_value_heads, head_dim)."""
    grouped = _grouped(part, total)
    anchors, number = documents.once("anchors", lambda: documents.anchor_of_token.unique(return_inverse=True))
    sums = grouped.new_zeros(len(anchors), *grouped.shape[1:]).index_add_(0, number, grouped)
    total[anchors] += sums.to(total.dtype)


def _anchor_score(x: _Inputs) -> Tensor:
    """(tokens, heads) in float32 at least; -inf at anchors, which see themselves in their own document."""
    places = x.documents.anchor_of_token
    wide = torch.promote_types(x.q.dtype, torch.float32)
    score = x.scale * (x.q.to(wide) * _of_heads(x.k, x.q)[places]).sum(-1)
    own = places == torch.arange(len(places), device=places.device)
    return score.masked_fill(own[:, None], -torch.inf)


def _of_heads(x: Tensor, q: Tensor) -> Tensor:
    """Key or value heads, repeated for each query head of their group."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _grouped(wide: Tensor, like: Tensor) -> Tensor:
    """The sum over each group's query heads."""
    return wide if wide.shape == like.shape else wide.unflatten(1, (like.shape[1], -1)).sum(2)


def _forward(x: _Inputs) -> tuple[Tensor, Tensor, Any]:
    """Output (tokens, heads, head_dim), log-sum-exp (tokens, heads), and what the CUDA backward asks for."""
    if x.q.is_cuda:
        lengths = _lengths(x.documents)
        out, lse, *state = aten._flash_attention_forward(
            *(*x[:3], *lengths, 0.0, x.causal, False), scale=x.scale
        )
        return out, lse.T.contiguous(), state[:2]
    outputs = [
        aten._scaled_dot_product_flash_attention_for_cpu(*qkv, 0.0, x.causal, scale=x.scale)
        for qkv in _by_document(x.documents, *(_of_heads(each, x.q) for each in x[:3]))
    ]
    out, lse = (_joined(parts) for parts in zip(*outputs, strict=True))
    return out, lse, None


def _backward(x: _Inputs, out: Tensor, lse: Tensor, grad: Tensor, state: Any) -> list[Tensor]:
    """The gradients of q, k and v through the documents alone."""
    if x.q.is_cuda:
        lengths = _lengths(x.documents)
        return list(
            aten._flash_attention_backward(
                *(grad, *x[:3], out, lse.T.contiguous(), *lengths, 0.0, x.causal, *state), scale=x.scale
            )
        )
    wide = (_of_heads(each, x.q) for each in x[:3])
    back = [
        aten._scaled_dot_product_flash_attention_for_cpu_backward(*part, 0.0, x.causal, scale=x.scale)
        for part in _by_document(x.documents, grad, *wide, out, lse)
    ]
    return [
        _grouped(_joined(parts), like) for parts, like in zip(zip(*back, strict=True), x[:3], strict=True)
    ]


def _lengths(documents: Documents) -> tuple[Tensor, Tensor, int, int]:
    """As a varlen kernel takes them, for queries and keys."""
    return documents.cu_seqlens, documents.cu_seqlens, documents.longest, documents.longest


def _by_document(documents: Documents, *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Each run of equally long documents, (documents, heads, length, ...) of all of `packed`."""
    sizes = [count * length for count, length in documents.runs]
    for run, parts in zip(documents.runs, zip(*(x.split(sizes) for x in packed), strict=True), strict=True):
        yield tuple(part.view(*run, *part.shape[1:]).transpose(1, 2) for part in parts)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """(tokens, heads, ...): the inverse of `_by_document` for one tensor."""
    return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
