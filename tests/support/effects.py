"""How a technique shows: numbers that must differ between a model with it and one without."""

import copy
from contextlib import nullcontext
from unittest import mock

import torch
from families import batch

from cadenza.attention import attention_modules


def logits(model, family, context=nullcontext):
    """Those at real tokens."""
    inputs = batch(family)
    with torch.no_grad(), context():
        out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return out[inputs["attention_mask"].bool()]


def logits_after_a_cast(model, family, context=nullcontext):
    """Those of tokens far apart, in float32, after a cast that has rounded what stands in a buffer."""
    cast, ids = copy.deepcopy(model).bfloat16().float(), batch(family, padding=None)["input_ids"]
    with torch.no_grad(), context():
        return cast(input_ids=ids, position_ids=1000 * torch.arange(ids.shape[1])[None]).logits


def rows_in_layers(model, family, context=nullcontext):
    """How many tokens the first attention computes on."""
    seen = []
    attention = next(attention_modules(model))
    linear = next(m for m in attention.modules() if type(m).__name__ in ("Linear", "Conv1D"))
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    logits(model, family)
    hook.remove()
    return torch.tensor(seen[0])


def rows_of_words(model, family, context=nullcontext):
    """How many rows the word embeddings have."""
    return torch.tensor(model.get_input_embeddings().weight.shape[:1], dtype=torch.float)


def scores_computed(model, family, context=nullcontext):
    """How many attention scores are computed, by head."""
    sdpa, seen = torch.nn.functional.scaled_dot_product_attention, []

    def counted(query, key, *args, **kwargs):
        seen.append(query.shape[0] * query.shape[-2] * key.shape[-2])
        return sdpa(query, key, *args, **kwargs)

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", counted):
        logits(model, family)
    return torch.tensor(sum(seen))


def labelled_logits(model, family, context=nullcontext):
    """The logits with labels, in evaluation."""
    with torch.no_grad():
        return model(**batch(family)).logits


def size_of_logits(model, family, context=nullcontext):
    """How many logits a call with labels returns."""
    logits = model(**batch(family)).logits
    return torch.tensor(0.0 if logits is None else logits.numel())


def anchored_logits(model, family, context=nullcontext):
    """The logits of one row with an anchor and two documents, the first of 5 tokens."""
    ids = batch(family, padding=None)["input_ids"]
    at = torch.arange(ids.shape[1])
    documents = torch.where(at == 0, 0, torch.where(at < 6, 1, 2)).expand(ids.shape)
    with torch.no_grad():
        return model(input_ids=ids, document_ids=documents).logits


def packed_logits(model, family, context=nullcontext):
    """The logits of one row that holds two documents, the first of 5 tokens."""
    ids = batch(family, padding=None)["input_ids"]
    documents = torch.where(torch.arange(ids.shape[1]) < 5, 1, 2).expand(ids.shape)
    with torch.no_grad():
        return model(input_ids=ids, document_ids=documents).logits


def loss_in_training(model, family, context=nullcontext):
    """The loss with labels, without dropout."""
    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with context():
        loss = model(**batch(family)).loss.detach()
    model.eval()
    return loss
