"""Which way to compute attention by document is the fastest on a CPU?

Forward and backward of one attention with ALiBi on documents packed without padding. The ways are one call
for each document (the `sdpa` kernel joins neighbours of equal length), documents sorted by length and padded
in groups of 8, a jagged nested tensor (which takes no bias), and all documents padded to the longest.
"""

import torch
import torch.nn.functional as F
from harness import Variant, Work, compare, record
from torch.nn.utils.rnn import pad_sequence
from workloads import SHAPES, cases, main

from cadenza.algorithms.alibi import AlibiBias


def attention(q, k, v, lengths=None):
    """SDPA with ALiBi on (rows, length, heads, head_dim); keys behind `lengths` are masked."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    bias = AlibiBias()(q[:1], k[:1])[None]
    if lengths is not None:
        padding = torch.arange(k.shape[2])[None] >= torch.tensor(lengths)[:, None]
        bias = bias.masked_fill(padding[:, None, None], torch.finfo(q.dtype).min)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)


def by_document(q, k, v, lengths):
    """One call for each document; (tokens, heads, head_dim) in and out, as in all ways."""
    bias = AlibiBias()(*(q.new_empty(q.shape[1], max(lengths), 1),) * 2)
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    made = []
    for part in parts:
        query, key, value = (x.transpose(0, 1)[None] for x in part)  # (1, heads, length, head_dim)
        length = query.shape[2]
        mask = bias[None, :, :length, :length]
        made.append(F.scaled_dot_product_attention(query, key, value, attn_mask=mask)[0].transpose(0, 1))
    return torch.cat(made)


def padded(q, k, v, lengths, group=None):
    """One call for each group of documents, sorted by length and padded to the longest of the group."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    group = group or len(order)
    parts, made = [x.split(lengths) for x in (q, k, v)], {}
    for start in range(0, len(order), group):
        chosen = order[start : start + group]
        rows = (pad_sequence([part[i] for i in chosen], batch_first=True) for part in parts)
        outputs = attention(*rows, [lengths[i] for i in chosen])
        made |= {i: outputs[n, : lengths[i]] for n, i in enumerate(chosen)}
    return torch.cat([made[i] for i in range(len(lengths))])


def jagged(q, k, v, lengths):
    """One call on a nested tensor, without a bias."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = (torch.nested.nested_tensor_from_jagged(x, offsets).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(*rows).transpose(1, 2).values()


ROUTES = {
    "by document": by_document,
    "groups of 8": lambda *args: padded(*args, group=8),
    "jagged, no bias": jagged,
    "padded": padded,
}


def run(shape: str, rounds: int, only: str) -> None:
    """The cases of a shape."""
    hidden, heads, _, rows = SHAPES[shape]
    for name, batch in cases(rows, only).items():
        total = sum(batch.lengths)
        qkv = [torch.randn(total, heads, hidden // heads, requires_grad=True) for _ in range(3)]
        flops = sum(12 * hidden * n * n for n in batch.lengths)

        def step(route, qkv=qkv, lengths=batch.lengths):
            output = route(*qkv, lengths)
            torch.autograd.grad(output.sum(), qkv)

        variants = [
            Variant(n, lambda route=route, step=step: step(route), Work(flops, total))
            for n, route in ROUTES.items()
        ]
        record(compare("routes", f"{shape}, {name}", variants, rounds), "routes")


if __name__ == "__main__":
    main(__doc__, run)
