"""ALiBi against a plain float64 attention, at any length, in generation."""

import math

import pytest
import torch
from attention_calls import Attention
from families import DECODERS, LEARNED_POSITIONS, POSITIONS, batch, build
from mosaicbert_reference import slopes
from torch import nn

from cadenza.algorithms import apply_alibi
from cadenza.algorithms.alibi import AlibiBias, alibi_slopes
from cadenza.attention import AttentionPlan, attention_modules
from cadenza.attention.seam import attend
from cadenza.surgery import NoEffect, SurgeryError


def naive(q, k, v, slope, mask, causal):
    """One head, one row at a time: q (q, d), k and v (k, d)."""
    out, offset = torch.zeros(q.shape[0], v.shape[1], dtype=q.dtype), k.shape[0] - q.shape[0]
    for i in range(q.shape[0]):
        seen = [j for j in range(k.shape[0]) if mask[j] and not (causal and j > i + offset)]
        if not seen:
            continue
        scores = torch.stack([q[i] @ k[j] / math.sqrt(len(q[i])) - slope * abs(i + offset - j) for j in seen])
        out[i] = torch.softmax(scores, 0) @ v[seen]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "key_value_heads"), [(1, 1), (3, 3), (6, 2), (8, 8)])
@pytest.mark.parametrize(("q", "k"), [(1, 1), (7, 7), (1, 9), (3, 9)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_against_naive_attention(causal, heads, key_value_heads, q, k, masked, dtype):
    torch.manual_seed(0)
    query = torch.randn(2, heads, q, 5).to(dtype).requires_grad_()
    key, value = (torch.randn(2, key_value_heads, k, 5).to(dtype).requires_grad_() for _ in range(2))
    seen = torch.ones(2, k, dtype=torch.bool)
    seen[1, : k // 3 if masked else 0] = False
    mask = seen[:, None, None, :].expand(2, 1, q, k)
    if causal:
        at = torch.arange(k)
        mask = mask & (at[None, :] <= at[k - q :, None])
    # With equal lengths and no padding transformers hands over no mask.
    given = None if not masked and q == k else mask
    groups = heads // key_value_heads
    out, _ = attend(Attention(causal, groups), query, key, value, given, scaling=5**-0.5)
    live = mask.any(-1).transpose(1, 2)[..., None]  # queries that see a key
    (out * live).to(torch.float64).square().sum().backward()

    exact = [t.detach().double().requires_grad_() for t in (query, key, value)]
    rows = [
        [
            naive(exact[0][b, h], exact[1][b, h // groups], exact[2][b, h // groups], slope, seen[b], causal)
            for h, slope in enumerate(slopes(heads))
        ]
        for b in range(2)
    ]
    expected = torch.stack([torch.stack(row) for row in rows]).transpose(1, 2)
    (expected * live).square().sum().backward()

    # Rounding of inputs is shared; what remains grows with the terms of a sum, here up to 9 keys x 5.
    tolerance = 64 * torch.finfo(dtype).eps
    assert ((out.double() - expected) * live).abs().max() < tolerance * expected.abs().max()
    for ours, theirs in zip((query, key, value), exact, strict=True):
        scale = max(theirs.grad.abs().max().item(), 1.0)
        assert (ours.grad.double() - theirs.grad).abs().max() < tolerance * scale


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20, 25])
def test_slopes(heads):
    assert alibi_slopes(heads).tolist() == pytest.approx(slopes(heads), rel=1e-6)


def test_slopes_of_twelve_heads():
    known = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]
    known += [0.707107, 0.353553, 0.176777, 0.088388]
    assert alibi_slopes(12).tolist() == pytest.approx(known, abs=1e-6)


def test_the_bias_is_rounded_once():
    """bfloat16 counts to 256; queries stand at the last keys."""
    query = torch.zeros(1, 4, 3, 8, dtype=torch.bfloat16)
    key = torch.zeros(1, 4, 700, 8, dtype=torch.bfloat16)
    distance = (torch.arange(700)[None] - torch.arange(697, 700)[:, None]).abs()
    exact = -torch.tensor(slopes(4), dtype=torch.float64)[:, None, None] * distance
    found = AlibiBias()(query, key)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())
    assert AlibiBias()(query.double(), key.double()).equal(exact)
    assert torch.equal(AlibiBias()(query[0], key[0]), found), "with a batch or without"


def test_slopes_are_exact_where_they_are_asked_for():
    assert alibi_slopes(6).dtype == torch.float64
    assert alibi_slopes(2, "meta").device.type == "meta"
    assert repr(AlibiBias()) == "alibi"


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_transformers_draws_no_table_anew(family):
    """As it does of modules that it doesn't know to be initialized."""
    model = build(family)
    for module in model.modules():
        module._is_hf_initialized = False
    apply_alibi(model)
    model.init_weights()
    assert model(**batch(family)).loss.isfinite()


@pytest.mark.parametrize("family", LEARNED_POSITIONS)
def test_no_position_table_is_left_and_any_length_runs(family):
    model = build(family)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        model(**batch(family, length=2 * POSITIONS))
    before = set(model.state_dict())
    apply_alibi(model)
    gone = before - set(model.state_dict())
    assert set(model.state_dict()) < before, "no key is new"
    assert all("position_embeddings" in key or "wpe" in key for key in gone)
    assert gone
    assert not any("position" in name or "wpe" in name for name, _ in model.named_parameters())
    for length in (1, POSITIONS + 1, 3 * POSITIONS):
        out = model(**batch(family, length=length, padding=None))
        assert out.loss.isfinite() or length == 1


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert"])
def test_encoders_are_symmetric(family):
    """Mirrored input, mirrored output: |i - j| is all that an encoder knows of positions."""
    model = build(family)
    apply_alibi(model)
    inputs = batch(family, padding=None)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    forth = model(input_ids=ids, attention_mask=mask).logits
    back = model(input_ids=ids.flip(1), attention_mask=mask).logits
    assert (forth - back.flip(1)).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert", "modernbert"])
def test_padding_side_does_not_matter(family):
    model = build(family)
    apply_alibi(model)
    ids = torch.randint(3, 90, (1, 7))
    pad, one = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 7, dtype=torch.long)
    right = model(input_ids=torch.cat([ids, pad], 1), attention_mask=torch.cat([one, pad], 1)).logits
    left = model(input_ids=torch.cat([pad, ids], 1), attention_mask=torch.cat([pad, one], 1)).logits
    alone = model(input_ids=ids, attention_mask=one).logits
    assert (right[:, :7] - alone).abs().max() < 1e-5
    assert (left[:, 4:] - alone).abs().max() < 1e-5


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_generate_as_they_read(family):
    """Each cached step gives the logits of the whole sequence read at once, left padding included."""
    model = build(family)
    apply_alibi(model)
    ids = torch.randint(3, 90, (2, 11))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    whole = model(input_ids=ids, attention_mask=mask).logits
    out = model(input_ids=ids[:, :6], attention_mask=mask[:, :6], use_cache=True)
    steps = [out.logits[:, -1]]
    for t in range(6, 11):
        past = out.past_key_values
        out = model(input_ids=ids[:, t : t + 1], attention_mask=mask[:, : t + 1], past_key_values=past)
        steps.append(out.logits[:, -1])
    assert (torch.stack(steps, 1) - whole[:, 5:]).abs().max() < 1e-5


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate(cache):
    model = build("llama")
    apply_alibi(model)
    ids = torch.randint(3, 90, (2, 5))
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    out = model.generate(ids, cache_implementation=cache, **kwargs)
    for t in range(5, 11):
        assert torch.equal(out[:, t], model(input_ids=out[:, :t]).logits[:, -1].argmax(-1))


def test_gpt2_bias_reaches_the_output():
    """Composer's own ALiBi on GPT-2 logs success and changes the logits by exactly 0.0."""
    model = build("gpt2")
    apply_alibi(model)
    inputs = batch("gpt2", padding=None)
    with_bias = model(**inputs).logits
    for module in attention_modules(model):
        module.attention_plan = AttentionPlan("sdpa")
    assert (model(**inputs).logits - with_bias).abs().max() > 1e-4


def test_eager_stock_keeps_its_attention_weights():
    model = build("bert", attention="eager")
    reference = build("bert")
    apply_alibi(model)
    apply_alibi(reference)
    inputs = batch("bert")
    out = model(**inputs, output_attentions=True)
    assert (out.logits - reference(**inputs).logits).abs().max() < 1e-5
    assert out.attentions[0].shape == (3, 4, 13, 13)


def test_what_does_not_fit_is_said():
    with pytest.raises(NoEffect, match="Sequential has no encoder or decoder whose attention is on"):
        apply_alibi(nn.Sequential(nn.Linear(2, 2)))
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(hidden_size=16, num_hidden_layers=1, ffn_dim=16, num_attention_heads=2, vocab_size=50)
    model = OPTForCausalLM(config).eval()
    before = model(torch.tensor([[3, 4, 5]])).logits
    with pytest.raises(SurgeryError, match="neither a table of learned positions"):
        apply_alibi(model)
    assert torch.equal(before, model(torch.tensor([[3, 4, 5]])).logits)
    assert model.config._attn_implementation == "sdpa"
