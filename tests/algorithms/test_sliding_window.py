"""Sliding windows against stock models under a dense mask in float64, and what they go together with."""

import pytest
import reference
import torch
from families import CONFIGS, DECODERS, batch, build
from transformers import DynamicCache, StaticCache

from cadenza.algorithms import (
    apply_alibi,
    apply_anchor_attention,
    apply_flash_attention,
    apply_sequence_packing,
    apply_sliding_window,
    apply_unpadding,
)
from cadenza.attention import attention_modules
from cadenza.surgery import Conflict, NoEffect, SurgeryError

WINDOW = 3
PLAIN = [name for name in CONFIGS if name not in ("modernbert", "mistral")]  # without windows of their own
LENGTHS = [9, 1, 2, 12]


def dense(length, family, window=WINDOW):
    """(1, 1, length, length), to be added to the scores: what is `window` away or less, by loops."""
    mask = torch.full((1, 1, length, length), -torch.inf, dtype=torch.float64)
    for q in range(length):
        for k in range(length):
            if abs(q - k) <= window and not (family in DECODERS and k > q):
                mask[..., q, k] = 0
    return mask


def found(model, ids, **inputs):
    """The logits, and all gradients of the sum of their squares."""
    model.zero_grad()
    logits = model(input_ids=ids, **inputs).logits
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def off(ours, theirs):
    """The largest relative difference."""
    pairs = zip(ours, theirs, strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs if b.norm() > 1e-12)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", PLAIN)
def test_logits_and_gradients_of_a_dense_mask(family, attention):
    model = build(family, attention=attention).double()
    ids = batch(family, padding=None)["input_ids"]
    plain = found(model, ids)
    masked = found(model, ids, attention_mask=dense(ids.shape[1], family))
    apply_sliding_window(model, WINDOW)
    ours = found(model, ids)
    # An eager softmax is computed in float32.
    assert off(ours, masked) < (1e-5 if attention == "eager" else 1e-12)
    assert off(ours, plain) > 1e-3


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("length", [1, 2, WINDOW, WINDOW + 1, WINDOW + 2])
def test_what_is_exactly_so_far_is_seen(family, length):
    """At a length of window + 1 nothing is hidden; one more, and something is."""
    model = build(family).double()
    ids = batch(family, padding=None, length=length)["input_ids"]
    before = model(ids).logits
    apply_sliding_window(model, WINDOW)
    same = bool((model(ids).logits - before).abs().max() < 1e-12)
    assert same is (length <= WINDOW + 1)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", PLAIN)
def test_padding_counts_for_nothing(family, padding):
    """Each row is the same as without its padding, with the positions that it has there."""
    model = build(family).double()
    apply_sliding_window(model, WINDOW)
    inputs = batch(family, padding=padding)
    inputs.pop("labels")
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        places = mask.nonzero()[:, 0]
        where = {} if family == "distilbert" else {"position_ids": places[None]}
        if family in ("distilbert", "roberta") and padding == "left":
            continue  # which count positions in their own way
        if family == "roberta":
            where = {}
        alone = model(input_ids=inputs["input_ids"][row : row + 1, places], **where).logits[0]
        assert (model(**inputs).logits[row, places] - alone).abs().max() < 1e-10


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 4 * 2**-8)])
def test_other_dtypes(dtype, bound):
    """Of two layers, each rounds its output to `dtype` a few times."""
    model = build("llama").double()
    ids = batch("llama", padding=None)["input_ids"]
    apply_sliding_window(model, WINDOW)
    exact = model(ids).logits.detach()
    assert off([model.to(dtype)(ids).logits.detach().double()], [exact]) < bound


@pytest.mark.parametrize("family", PLAIN)
def test_by_document_each_is_as_if_alone(family):
    """Unpadded, packed, with ALiBi, on a kernel that is asked for: forward and backward."""
    alone, together = build(family).double(), build(family).double()
    for model in (alone, together):
        apply_alibi(model)
        apply_sliding_window(model, 2)
    apply_unpadding(together)
    apply_flash_attention(together, "sdpa")
    apply_sequence_packing(together)
    docs = reference.documents(LENGTHS)
    theirs = reference.alone(alone, docs)
    padded = reference.padded(docs, 12)
    ours = reference.together(together, padded, padded["attention_mask"].bool())
    assert reference.relative(ours, theirs) < 1e-10
    packed = reference.packed(docs, 14)
    ours = reference.together(together, packed, packed["document_ids"] > 0)
    assert reference.relative(ours, theirs) < 1e-10


def windows(model):
    return [module.attention_plan.window for module in attention_modules(model)]


@pytest.mark.parametrize(
    ("global_every", "expected"),
    [(None, [4, 4, 4, 4, 4]), (2, [None, 4, None, 4, None]), (3, [None, 4, 4, None, 4])],
)
@pytest.mark.parametrize("family", ["bert", "llama", "gpt2", "distilbert"])
def test_layers_that_see_all(family, global_every, expected):
    model = build(family, num_hidden_layers=5, n_layer=5, n_layers=5)
    report = apply_sliding_window(model, 3, global_every)
    assert windows(model) == expected
    assert len(report) == sum(window is not None for window in expected) + 1, "and the base model"
    report.undo()
    assert not any(hasattr(module, "attention_plan") for module in model.modules())


def test_layers_that_share_one_attention_cannot_differ():
    with pytest.raises(SurgeryError, match="the 2 layers of AlbertModel share 1 attention modules"):
        apply_sliding_window(build("albert"), 3, 2)


def test_one_layer_that_sees_all_is_no_effect():
    with pytest.raises(NoEffect):
        apply_sliding_window(build("bert", num_hidden_layers=1), 3, 2)


@pytest.mark.parametrize("window", [3, 9])
def test_of_two_windows_the_narrower_holds(window):
    """Mistral sees what is less than its `sliding_window` away."""
    narrow = build("mistral", sliding_window=min(window + 1, 5)).double()
    ours = build("mistral", sliding_window=5).double()
    ids = batch("mistral", padding=None)["input_ids"]
    expected = narrow(ids).logits
    apply_sliding_window(ours, window)
    assert (ours(ids).logits - expected).abs().max() < 1e-12
    apply_unpadding(ours)
    assert (ours(ids).logits - expected).abs().max() < 1e-12


def test_modernberts_global_layers_get_the_window():
    model = build("modernbert", local_attention=4).double()
    every_layer_local = build("modernbert", local_attention=4).double()
    apply_sliding_window(every_layer_local, 2)
    apply_sliding_window(model, 2, 2)
    ids = batch("modernbert", padding=None)["input_ids"]
    stock = build("modernbert", local_attention=4).double()(ids).logits
    assert (model(ids).logits - stock).abs().max() < 1e-12, "its own layers see 2 tokens on either side"
    assert (every_layer_local(ids).logits - stock).abs().max() > 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_generation_sees_the_same(family):
    model = build(family).double()
    apply_sliding_window(model, WINDOW)
    ids = batch(family, padding=None)["input_ids"]
    whole, cache = model(ids, use_cache=False).logits, DynamicCache(config=model.config)
    parts = [model(part, past_key_values=cache).logits for part in ids.split([4, 1, 1, 7], dim=1)]
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-12


def test_a_static_cache_is_refused():
    model = build("llama")
    ids = batch("llama", padding=None)["input_ids"]
    apply_sliding_window(model, WINDOW)
    with pytest.raises(SurgeryError, match="StaticCache: a claimed window counts the positions"):
        model(ids, past_key_values=StaticCache(config=model.config, max_cache_len=20))


def test_a_window_would_hide_an_anchor():
    for first, second in ((0, 1), (1, 0)):
        model = build("llama")
        applied = [lambda m: apply_anchor_attention(m), lambda m: apply_sliding_window(m, 3)]
        applied[first](model)
        with pytest.raises(Conflict, match="a sliding window hides the anchor of anchor_attention"):
            applied[second](model)


@pytest.mark.parametrize("mode", ["intra_document", "full"])
def test_windows_within_what_a_mode_shows(mode):
    """Documents by themselves, behind an anchor of their own; or the whole row, whatever its documents."""
    model = build("llama").double()
    apply_sliding_window(model, 2)
    ids = batch("llama", padding=None, rows=1)["input_ids"]
    pieces = ids.split([1, 7, 5], dim=1) if mode == "intra_document" else [ids]
    alone = torch.cat([model(piece).logits for piece in pieces], dim=1)
    apply_anchor_attention(model, mode, reset_positions=mode == "intra_document")
    documents = torch.tensor([[0] + 7 * [1] + 5 * [2]])
    assert (model(ids, document_ids=documents).logits - alone).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((0,), "window is 0; it must be at least 1"),
        ((-2,), "window is -2; it must be at least 1"),
        ((3, 1), "global_every is 1; it must be at least 2"),
        ((3, 0), "global_every is 0; it must be at least 2"),
    ],
)
def test_what_is_too_small_is_said(options, said):
    with pytest.raises(SurgeryError, match=said):
        apply_sliding_window(build("bert"), *options)


def test_a_recipe_has_to_name_the_window():
    from cadenza.recipe import RecipeError, load

    with pytest.raises(RecipeError, match=r"algorithms\.sliding_window\.window is missing"):
        load([], ["algorithms.sliding_window={}"])
    assert load([], ["algorithms.sliding_window.window=64"]).algorithms == {"sliding_window": {"window": 64}}
