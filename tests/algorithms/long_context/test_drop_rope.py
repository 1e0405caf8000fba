"""drop_rope: attention without rotation in float64, on every kind of rotary embedding, cached and packed."""

import copy
import math

import pytest
import torch
from families import build
from text_families import build as build_family
from text_families.sweep import relative, tokens
from torch import nn

from cadenza.algorithms import (
    apply_alibi,
    apply_anchor_attention,
    apply_bf16_safe_rope,
    apply_drop_rope,
    apply_flash_attention,
    apply_sequence_packing,
    apply_unpadding,
    check_rope,
)
from cadenza.surgery import Conflict, NoEffect, SurgeryError

FULL = ("llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "olmo2", "granite")
PARTIAL = ("gpt_neox", "phi", "stablelm", "glm", "nemotron")
INTERLEAVED = ("cohere", "cohere2", "ernie4_5")
SOME_LAYERS = ("smollm3", "modernbert-decoder")
FLOAT32 = ("qwen3_moe", "deepseek_v3")  # torch has no float64 kernel for their experts
FAMILIES = (*FULL, *PARTIAL, *INTERLEAVED, *SOME_LAYERS, *FLOAT32)
TYPES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 16,
        "factor": 2.0,
    },
}


def dropped(model, **options):
    apply_drop_rope(model, **options)
    return model


def logits(model, ids, **inputs):
    """With a mask, without which transformers takes gaps in position_ids for boundaries of documents."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits


def with_gradients(model, ids, **inputs):
    output = logits(model, ids, **inputs)
    weigh = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(1))
    (output * weigh).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return output.detach(), gradients


def test_attention_equals_plain_products_in_float64():
    """Query and key as the projections make them, two query heads a key, causal; and the gradients."""
    model = dropped(build("llama").double())
    attention, x = model.model.layers[0].self_attn, torch.randn(1, 7, 32, dtype=torch.float64)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    tables = model.model.rotary_emb(x, 5 + torch.arange(7)[None])
    found = attention(ours, position_embeddings=tables, attention_mask=None)[0]

    query, key, value = (
        getattr(attention, f"{name}_proj")(theirs)[0].unflatten(1, (-1, 8)) for name in ("q", "k", "v")
    )
    rows = []
    for i in range(7):
        heads = []
        for head in range(4):
            scores = key[: i + 1, head // 2] @ query[i, head] / math.sqrt(8)
            heads.append(scores.softmax(0) @ value[: i + 1, head // 2])
        rows.append(torch.cat(heads))
    expected = attention.o_proj(torch.stack(rows))[None]
    for output in (found, expected):
        output.square().sum().backward()
    assert (found - expected).abs().max() < 1e-13
    assert (ours.grad - theirs.grad).abs().max() < 1e-12


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_equals_its_stock_code_at_one_position(name):
    """There the rotation is the same for query and key, so it has no effect on their product."""
    exact = name not in FLOAT32
    stock, ids = build_family(name), tokens(2, 13)
    stock = stock.double() if exact else stock
    ours = dropped(copy.deepcopy(stock))
    found, gradients = with_gradients(ours, ids)
    expected, others = with_gradients(stock, ids, position_ids=torch.zeros_like(ids))
    assert relative(found, expected) < (1e-6 if exact else 1e-5)  # some stock code computes in float32
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        assert (gradient - others[key]).norm() <= (1e-5 if exact else 1e-3) * max(others[key].norm(), 1e-3), (
            key
        )
    with torch.no_grad():
        assert relative(logits(stock, ids), expected) > 1e-3, "the positions of the stock model matter"


@pytest.mark.parametrize("name", FAMILIES)
def test_no_position_matters(name):
    model, ids = dropped(build_family(name)), tokens(2, 13)
    order = torch.tensor([5, 0, 90_000, 2, 11, 7, 7, 1, 300, 12, 3, 4, 8]).expand_as(ids)
    with torch.no_grad():
        there = logits(model, ids)
        assert torch.equal(logits(model, ids, position_ids=order), there)
        padded = torch.cat([torch.zeros(2, 4, dtype=torch.long), ids], 1)
        mask = torch.tensor([0] * 4 + [1] * 13).expand_as(padded)
        assert relative(model(input_ids=padded, attention_mask=mask).logits[:, 4:], there) < 1e-5


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_rope_type_puts_on_the_tables_goes_too(kind):
    """YaRN and longrope scale cos and sin."""
    given = {"rope_type": kind, "rope_theta": 500.0, **TYPES[kind]}
    plain, scaled = build("llama"), build("llama", rope_parameters=given)
    assert scaled.model.rotary_emb.attention_scaling != 1 or kind in ("linear", "dynamic")
    ids = tokens(2, 40)
    with torch.no_grad():
        assert torch.equal(logits(dropped(scaled), ids), logits(dropped(plain), ids))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "cohere", "gemma3_text"])
def test_a_cache_gives_what_the_whole_sequence_gives(name):
    model, ids = dropped(build_family(name)), tokens(2, 70)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        out = model(input_ids=ids[:, :60], use_cache=True)
        steps = [out.logits[:, -1]]
        for t in range(60, 70):
            out = model(input_ids=ids[:, t : t + 1], past_key_values=out.past_key_values, use_cache=True)
            steps.append(out.logits[:, -1])
    assert relative(torch.stack(steps, 1), whole[:, 59:]) < 1e-5


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(cache):
    model, ids = dropped(build("llama")), tokens(2, 30)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    out = model.generate(ids, cache_implementation=cache, **options)
    for t in range(30, 36):
        assert torch.equal(out[:, t], model(input_ids=out[:, :t]).logits[:, -1].argmax(-1))


@pytest.mark.parametrize("apply", [apply_sequence_packing, apply_unpadding, apply_flash_attention])
def test_by_document_it_computes_the_same(apply):
    model, ids = dropped(build("llama")), tokens(2, 13)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        apply(model)
        after = model(input_ids=ids, attention_mask=mask).logits
    assert relative(after[mask.bool()], before[mask.bool()]) < 1e-5


@pytest.mark.parametrize("mode", ["anchor", "intra_document"])
def test_a_document_in_a_window_is_what_it_is_behind_its_anchor(mode):
    model, ids = dropped(build("llama")), tokens(1, 12)
    apply_anchor_attention(model, mode)
    numbers = torch.tensor([[0] + [1] * 5 + [2] * 6])
    with torch.no_grad():
        found = model(input_ids=ids, document_ids=numbers).logits[:, 6:]
        alone = torch.cat([ids[:, : int(mode == "anchor")], ids[:, 6:]], 1)
        assert relative(found, model(input_ids=alone).logits[:, -6:]) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox", "deepseek_v3"])
def test_temperature_divides_the_scores(name):
    """As queries do that are divided before; a query's products are its only use."""
    model, ids = build_family(name), tokens(2, 13)
    reference = dropped(copy.deepcopy(model))
    layers = [m for m in reference.modules() if "attention_plan" in vars(m)]
    before = [layer.scaling for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.scaling *= 4
        expected = logits(reference, ids)
        report = apply_drop_rope(model, 0.25)
        assert relative(logits(model, ids), expected) < 1e-6
    report.undo()
    assert [m.scaling for m in model.modules() if type(m) is type(layers[0])] == before


def test_frequencies_that_nothing_reads_are_not_checked():
    for apply in (apply_drop_rope, apply_alibi):
        model = build("llama").bfloat16()
        apply(model)
        assert check_rope(model) == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (apply_alibi, "taken by"),
        (apply_bf16_safe_rope, "taken by"),
        (lambda m: apply_anchor_attention(m, reset_positions=True), "leaves no positions: leave reset"),
    ],
    ids=["alibi", "bf16_safe_rope", "reset_positions"],
)
def test_what_it_does_not_go_with(other, message):
    for first, second in ((apply_drop_rope, other), (other, apply_drop_rope)):
        model = build("llama")
        first(model)
        with pytest.raises(Conflict, match=message):
            second(model)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("modernbert", SurgeryError, "not causal; without positions it would see a bag of words"),
        ("gpt2", NoEffect, "found nothing to change"),
        ("gptj", NoEffect, "found nothing to change"),
        ("llama4_text", SurgeryError, "scales queries by position"),
        ("ministral3", SurgeryError, "positions remain"),
        ("jamba", SurgeryError, "tokens reach each other outside|nothing to change"),
    ],
)
def test_models_that_are_refused(name, error, message):
    model = build_family(name)
    before = {path: type(module) for path, module in model.named_modules()}
    with pytest.raises(error, match=message):
        apply_drop_rope(model)
    assert before == {path: type(module) for path, module in model.named_modules()}


def test_a_rotary_embedding_that_returns_something_else_is_refused(monkeypatch):
    """Angles, as some code of one's own has them."""
    model = build_family("olmo2")
    stock = type(model.model.rotary_emb)
    monkeypatch.setattr(stock, "forward", lambda self, x, position_ids: position_ids)
    with pytest.raises(
        SurgeryError, match="returns Tensor, not cos and sin: its rotation can't be taken away"
    ):
        apply_drop_rope(model)


def test_a_part_of_a_model_is_refused():
    with pytest.raises(NoEffect):
        apply_drop_rope(nn.Linear(2, 2))
