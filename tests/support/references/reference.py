"""Plain references: attention by document written out, and models run on each document alone."""

import math

import torch
from families import VOCABULARY

from cadenza.algorithms.alibi import alibi_slopes


def attention(query, key, value, lengths, *, alibi=False, causal=False, window=None, scaling=None):
    """Softmax attention of each document to itself: (1, total, heads, head_dim) in and out."""
    groups = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(groups, dim=2) for x in (key, value))
    scaling = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    slopes = alibi_slopes(query.shape[2]).to(query)
    outputs, start = [], 0
    for length in lengths:
        q, k, v = (x[0, start : start + length] for x in (query, key, value))
        distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        scores = torch.einsum("qhd,khd->hqk", q, k) * scaling
        if alibi:
            scores = scores - slopes[:, None, None] * distance.abs()
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if causal:
            hidden |= distance < 0
        if window is not None:
            hidden |= distance.abs() >= window
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
        start += length
    return torch.cat(outputs)[None]


def documents(lengths, seed=0):
    """Random documents of these lengths, with labels on about half of the tokens."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        ids = torch.randint(3, VOCABULARY, (1, length), generator=generator)
        chosen = torch.rand(ids.shape, generator=generator) < 0.5
        made.append({"input_ids": ids, "labels": ids.masked_fill(~chosen, -100)})
    return made


def alone(model, docs):
    """Logits of each document run alone, and the gradients of the sum of their squares."""
    model.zero_grad()
    logits = [model(input_ids=doc["input_ids"]).logits[0] for doc in docs]
    return _with_gradients(model, logits)


def padded(docs, width, side="right"):
    """The documents as a padded batch: `input_ids` and `attention_mask`."""
    ids, mask = torch.zeros(2, len(docs), width, dtype=torch.long)
    for row, doc in enumerate(docs):
        length = doc["input_ids"].shape[1]
        columns = slice(0, length) if side == "right" else slice(width - length, width)
        ids[row, columns], mask[row, columns] = doc["input_ids"][0], 1
    return {"input_ids": ids, "attention_mask": mask}


def packed(docs, width):
    """The documents in rows, as many as fit in `width` columns: `input_ids` and `document_ids`."""
    rows = [[]]
    for doc in docs:
        if sum(d["input_ids"].shape[1] for d in rows[-1]) + doc["input_ids"].shape[1] > width:
            rows.append([])
        rows[-1].append(doc)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    document_ids = torch.full_like(ids, -1)
    for r, row in enumerate(rows):
        start = 0
        for number, doc in enumerate(row, 1):
            end = start + doc["input_ids"].shape[1]
            ids[r, start:end], document_ids[r, start:end] = doc["input_ids"][0], number
            start = end
    return {"input_ids": ids, "document_ids": document_ids}


def together(model, inputs, real):
    """Like `alone` for a batch in which `real` marks the documents' tokens, in order."""
    model.zero_grad()
    return _with_gradients(model, [model(**inputs).logits[real]])


def _with_gradients(model, logits):
    flat = torch.cat(logits)
    flat.square().sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return flat.detach(), gradients


def relative(ours, theirs):
    """The larger of two relative errors: of the logits, and of all gradients as one vector."""
    assert ours[1].keys() == theirs[1].keys()
    flat = [torch.cat([g.flatten() for _, g in sorted(x[1].items())]) for x in (ours, theirs)]
    pairs = ((ours[0], theirs[0]), flat)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)
