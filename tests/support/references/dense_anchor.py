"""What AnchorAttention must equal: stock models, and plain attention, under a dense mask."""

from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from families import build

from cadenza.algorithms import apply_anchor_attention
from cadenza.attention import AttentionPlan

MODES = [
    ("full", False),
    ("intra_document", False),
    ("intra_document", True),
    ("anchor", False),
    ("anchor", True),
]
LENGTHS = {
    "ones": [[1, 1, 1]],
    "twos": [[2, 2, 1, 2]],
    "odd": [[7, 3, 5]],
    "one long": [[61]],
    "200 short": [[1 + i % 3 for i in range(200)]],
    "batch of three": [[5, 2, 9], [1, 1, 20, 3], [17]],
}
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
every_mode = pytest.mark.parametrize(("mode", "reset"), MODES)


def ids_of(lengths):
    """(rows, longest) document ids with the anchor in front and padding behind."""
    rows = [torch.tensor([0, *(n for n, size in enumerate(row, 1) for _ in range(size))]) for row in lengths]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def dense_mask(ids, mode):
    """(rows, 1, length, length), True where a query sees a key; padding sees itself, so that none is NaN."""
    q, k = ids[:, :, None], ids[:, None, :]
    at = torch.arange(ids.shape[1])
    seen = {"full": torch.ones_like(q == k), "intra_document": q == k, "anchor": (q == k) | (k == 0)}[mode]
    seen = seen & (k != -1) & (q != -1)
    return ((seen & (at[:, None] >= at)) | (at[:, None] == at))[:, None]


def positions(ids, mode, reset):
    running = torch.arange(ids.shape[1]).expand(ids.shape)
    if not reset:
        return running
    starts = torch.ones_like(ids, dtype=torch.bool)
    starts[:, 1:] = ids.diff() != 0
    start = torch.where(starts, running, 0).cummax(1).values
    return running - start + ((ids > 0) & (mode == "anchor"))


def tokens(ids, seed=0):
    drawn = torch.randint(3, 90, ids.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(ids == 0, 1, drawn).masked_fill(ids == -1, 0)


def attention(query, key, value, ids):
    """Softmax attention under the anchor's mask, (total, heads, head_dim); one row of ids."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~dense_mask(ids, "anchor")[0, 0], -torch.inf)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)


def module(groups=1):
    """As much of an attention module as a kernel looks at."""
    plan = AttentionPlan("sdpa")
    return SimpleNamespace(is_causal=True, training=False, num_key_value_groups=groups, attention_plan=plan)


def language_model(family="llama", dtype=torch.float64, **options):
    sizes = {"n_positions": 512} if family == "gpt2" else {"max_position_embeddings": 512}
    if family == "mistral":
        sizes["sliding_window"] = None
    return build(family, **sizes, **options).to(dtype)


def loss_and_gradients(model, real, **inputs):
    """Logits at real tokens, then the gradient of every parameter."""
    logits = model(**inputs).logits[real]
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
    model.zero_grad()
    (logits * weights).sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def difference(ours, theirs):
    """The largest one, relative to the largest value where that is above one; of tensors or lists of them."""
    if isinstance(ours, torch.Tensor):
        ours, theirs = [ours], [theirs]
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in pairs)


class Trial(NamedTuple):
    error: float  # from the stock model under a dense mask, forward and backward
    effect: float  # of that mask: the stock model with it and without
    hides: bool  # whether that mask hides anything that a causal one shows


def trial(model, lengths, mode, reset, apply=lambda model: None):
    """`model` with anchor attention and what `apply` does, against itself before."""
    ids = ids_of(lengths)
    inputs, real = tokens(ids), ids != -1
    seen = dense_mask(ids, mode)
    # Added to the scores: stock eager attention adds a boolean one as it is.
    mask = torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, -torch.inf)
    where = positions(ids, mode, reset).masked_fill(~real, 0)
    plain = loss_and_gradients(model, real, input_ids=inputs)
    right = loss_and_gradients(model, real, input_ids=inputs, attention_mask=mask, position_ids=where)
    apply_anchor_attention(model, mode, reset)
    apply(model)
    ours = loss_and_gradients(model, real, input_ids=inputs, document_ids=ids)
    hides = bool((dense_mask(ids, "full") & ~seen).any())
    return Trial(difference(ours, right), difference(plain, right), hides)
