"""Attention to a document and an anchor, merged in closed form: no copy of the anchor is made.

With s_0 the anchor's score, lse the document's log-sum-exp and O its output, L = logaddexp(lse, s_0) and
p_0 = exp(s_0 - L), the whole is (1 - p_0) O + p_0 v_0. A flash backward that is given the merged output and L
recomputes exp(s - L), which are the merged probabilities, so it gives the document's part of the gradients
(Dao et al., arXiv 2205.14135, algorithm 4); autograd through a kernel's own log-sum-exp would not, since
kernels leave out the gradient through it. The anchor's part is of rank one.
"""

from typing import Any

import torch
from torch import Tensor

from cadenza.surgery.documents import Documents
from cadenza.surgery.varlen import Varlen

aten: Any = torch.ops.aten


def merged(call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Torch's own flash attention by document, its anchor merged in; shapes as in `varlen.stock`."""
    scale = query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    function: Any = _Merged.apply
    return function(query.squeeze(0), key.squeeze(0), value.squeeze(0), call.documents, call.causal, scale)[
        None
    ]


class _Merged(torch.autograd.Function):
    """(total, heads, head_dim) in and out; fewer heads of key and value are shared by groups."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents: Documents, causal: bool, scale: float
    ) -> Tensor:
        ctx.how = documents, causal, scale
        out, lse, ctx.state = _forward(q, k, v, *ctx.how)
        if documents.anchors:
            out, lse = _merge(q, k, v, out, lse, documents, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        grad = grads[0].contiguous()
        own = _backward(grad, q, k, v, out, lse, ctx.state, *ctx.how)
        documents, _, scale = ctx.how
        if documents.anchors:
            _add_anchor(own, grad, q, k, v, out, lse, documents, scale)
        return *own, None, None, None


def _merge(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, documents: Documents, scale: float
) -> tuple[Tensor, Tensor]:
    score = _anchor_score(q, k, documents, scale)
    whole = torch.logaddexp(lse, score)
    share = (score - whole).exp()[..., None]
    front = _of_heads(v, q)[documents.anchor_of_token]
    return ((1 - share) * out + share * front).to(out.dtype), whole


def _add_anchor(
    own: list[Tensor],
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    documents: Documents,
    scale: float,
) -> None:
    """Add the anchor's part to the gradients `own` of q, k and v."""
    places = documents.anchor_of_token
    k0, v0, wide = _of_heads(k, q)[places], _of_heads(v, q)[places], lse.dtype
    share = (_anchor_score(q, k, documents, scale) - lse).exp()
    slope = scale * share * (grad.to(wide) * (v0.to(wide) - out.to(wide))).sum(-1)
    own[0] += (slope[..., None] * k0).to(q.dtype)
    _scatter(own[1], places, slope[..., None] * q)
    _scatter(own[2], places, share[..., None] * grad)


def _scatter(total: Tensor, places: Tensor, part: Tensor) -> None:
    """Add (tokens, heads, head_dim) to the rows `places` of (tokens, key_value_heads, head_dim)."""
    grouped = part.unflatten(1, (total.shape[1], -1)).sum(2)
    anchors, number = places.unique(return_inverse=True)
    sums = grouped.new_zeros(len(anchors), *grouped.shape[1:]).index_add_(0, number, grouped)
    total[anchors] += sums.to(total.dtype)


def _anchor_score(q: Tensor, k: Tensor, documents: Documents, scale: float) -> Tensor:
    """(tokens, heads) in float32 at least; -inf at anchors, which see themselves in their own document."""
    places = documents.anchor_of_token
    wide = torch.promote_types(q.dtype, torch.float32)
    score = scale * (q.to(wide) * _of_heads(k, q)[places]).sum(-1)
    own = places == torch.arange(len(places), device=places.device)
    return score.masked_fill(own[:, None], -torch.inf)


def _of_heads(x: Tensor, q: Tensor) -> Tensor:
    """Key or value heads, repeated for each query head of their group."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


def _forward(
    q: Tensor, k: Tensor, v: Tensor, documents: Documents, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Any]:
    """Output (tokens, heads, head_dim), log-sum-exp (tokens, heads), and what the CUDA backward asks for."""
    if q.is_cuda:
        ends, longest = documents.cu_seqlens, documents.longest
        out, lse, *state = aten._flash_attention_forward(
            *(q, k, v, ends, ends, longest, longest, 0.0, causal, False), scale=scale
        )
        return out, lse.T.contiguous(), state[:2]
    outputs = [
        aten._scaled_dot_product_flash_attention_for_cpu(*qkv, 0.0, causal, scale=scale)
        for qkv in zip(*(_split(x, documents) for x in (q, _of_heads(k, q), _of_heads(v, q))), strict=True)
    ]
    out = torch.cat([out.transpose(1, 2).flatten(0, 1) for out, _ in outputs])
    return out, torch.cat([lse.transpose(1, 2).flatten(0, 1) for _, lse in outputs]), None


def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    state: Any,
    documents: Documents,
    causal: bool,
    scale: float,
) -> list[Tensor]:
    """The gradients of q, k and v through the documents alone."""
    if q.is_cuda:
        ends, longest = documents.cu_seqlens, documents.longest
        return list(
            aten._flash_attention_backward(
                *(grad, q, k, v, out, lse.T.contiguous(), ends, ends, longest, longest, 0.0, causal, *state),
                scale=scale,
            )
        )
    wide = [grad, q, _of_heads(k, q), _of_heads(v, q), out]
    parts = zip(*(_split(x, documents) for x in wide), _split(lse, documents), strict=True)
    back = [
        aten._scaled_dot_product_flash_attention_for_cpu_backward(*part, 0.0, causal, scale=scale)
        for part in parts
    ]
    whole = [torch.cat([g.transpose(1, 2).flatten(0, 1) for g in grads]) for grads in zip(*back, strict=True)]
    return [w if w.shape == x.shape else _grouped(w, x) for w, x in zip(whole, (q, k, v), strict=True)]


def _grouped(wide: Tensor, like: Tensor) -> Tensor:
    return wide.unflatten(1, (like.shape[1], -1)).sum(2)


def _split(x: Tensor, documents: Documents) -> list[Tensor]:
    """(documents, heads, length, ...) for each run of equally long ones."""
    sizes = [count * length for count, length in documents.runs]
    parts = zip(x.split(sizes), documents.runs, strict=True)
    return [part.view(*run, *part.shape[1:]).transpose(1, 2) for part, run in parts]
