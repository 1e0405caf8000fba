"""bf16_safe_rope: rotation against complex numbers in float64; what casts can't do to it; every rope type."""

import copy

import pytest
import torch
from families import batch, build, real_logits
from rotation import rotated
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from cadenza.algorithms import (
    apply_alibi,
    apply_bf16_safe_rope,
    apply_flash_attention,
    apply_sequence_packing,
    apply_unpadding,
    check_rope,
)
from cadenza.surgery import Conflict, NoEffect, SurgeryError

FAMILIES = ("llama", "qwen3", "mistral")
TYPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 16,
        "factor": 2.0,
    },
}


def rotary_of(head_dim=128):
    """The rotary embedding of an operated Llama."""
    model = build(
        "llama", head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0}
    )
    apply_bf16_safe_rope(model)
    return model.model.rotary_emb


def turned_by(rotary, x, positions):
    """`x` (batch, heads, tokens, head_dim), rotated by stock code with our tables, rounded to its dtype."""
    tables = rotary(x, positions)
    return apply_rotary_pos_emb(x, x, tables.cos, tables.sin)[0].to(x.dtype)


def scores(rotary, positions, query, key):
    """(pairs,): q.k of vectors at the two positions of each pair, after our rotation, summed in float64."""
    turned = [turned_by(rotary, x, at[None]) for x, at in zip((query, key), positions, strict=True)]
    return (turned[0].double() * turned[1].double()).sum(-1).flatten()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_rotation_and_its_gradient(dtype, length):
    rotary, generator = rotary_of(head_dim=16), torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, length, 16, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weigh = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)
    at = torch.randint(0, 1000, (2, length), generator=generator)
    ours = turned_by(rotary, x, at)
    ours.backward(weigh)
    exact = x.detach().double().requires_grad_()
    theirs = rotated(exact, at[:, None])
    theirs.backward(weigh.double())
    # The frequencies are transformers' float32 ones (6e-8 off, times positions up to 1,000).
    tolerance = max(torch.finfo(dtype).eps, 1e-4) * theirs.abs().max()
    assert (ours - theirs).abs().max() < tolerance
    assert (x.grad - exact.grad).abs().max() < tolerance


def test_rounded_frequencies_are_the_catastrophe_and_ours_are_not():
    """The facts' table at position 131,071: 0.99 with a rounded buffer, 2.4e-3 here."""
    ours, generator = rotary_of(), torch.Generator().manual_seed(1)
    pairs, last = 20_000, 131_071
    at = torch.stack([torch.full((pairs,), last), torch.randint(0, last + 1, (pairs,), generator=generator)])
    q, k = torch.randn(2, 1, 1, pairs, 128, generator=generator).bfloat16()
    rotary = LlamaRotaryEmbedding(ours.config)
    inverse = rotary.inv_freq.double()

    def turned(x, positions, inv_freq):
        angle = positions[:, None].double() * inv_freq
        z = torch.complex(x[..., :64].double(), x[..., 64:].double())
        return z * torch.polar(torch.ones_like(angle), angle)

    def exact(inv_freq):
        return (turned(q, at[0], inv_freq) * turned(k, at[1], inv_freq).conj()).real.sum(-1).flatten()

    def error(found):
        return ((found - exact(inverse)).square().mean() / exact(inverse).square().mean()).sqrt().item()

    rounded = rotary.bfloat16().inv_freq.double()
    assert error(exact(rounded)) == pytest.approx(0.99, abs=0.02)
    assert error(scores(ours, at, q, k)) == pytest.approx(2.4e-3, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("length", [13, 29])
def test_every_rope_type_gives_stock_logits(family, kind, length):
    options = {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **TYPES[kind]}}
    model = build(family, max_position_embeddings=16 if kind == "dynamic" else 64, **options)
    inputs = batch(family, length=length)
    stock = real_logits(model, inputs)
    apply_bf16_safe_rope(model)
    assert (real_logits(model, inputs) - stock).abs().max() < 1e-5 * stock.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_stock_ones(family):
    model = build(family)
    operated = copy.deepcopy(model)
    apply_bf16_safe_rope(operated)
    inputs = batch(family)
    model(**inputs).loss.backward()
    operated(**inputs).loss.backward()
    for (name, p), q in zip(model.named_parameters(), operated.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() < 1e-5 * max(p.grad.abs().max(), 1e-3), name


@pytest.mark.parametrize("family", FAMILIES)
def test_no_cast_changes_it(family):
    model = build(family)
    apply_bf16_safe_rope(model)
    inputs = batch(family)
    plain = copy.deepcopy(model)
    for parameter in plain.parameters():
        parameter.data = parameter.data.bfloat16().float()
    expected = real_logits(plain, inputs)
    assert torch.equal(real_logits(copy.deepcopy(model).bfloat16().float(), inputs), expected)
    buffers = copy.deepcopy(plain)
    for buffer in buffers.buffers():
        buffer.data = buffer.data.bfloat16()
    assert torch.equal(real_logits(buffers, inputs), expected), "as FSDP does at the first forward"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", [None, "left"])
def test_generation_with_a_cache(family, padding):
    model = build(family)
    inputs = batch(family, padding=padding)
    inputs.pop("labels")
    options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    stock = model.generate(**inputs, **options)
    logits = model(**inputs).logits
    apply_bf16_safe_rope(model)
    assert torch.equal(model.generate(**inputs, **options), stock)
    assert torch.equal(model.generate(**inputs, **options, use_cache=False), stock)
    if padding is None:
        cache = DynamicCache(config=model.config)
        parts = [
            model(inputs["input_ids"][:, part], past_key_values=cache).logits
            for part in (slice(8), slice(8, 13))
        ]
        assert (torch.cat(parts, 1) - logits).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", [1, -1])
def test_with_padding_free_techniques(family, order):
    model = build(family)
    inputs = batch(family)
    stock = real_logits(model, inputs)
    for apply in (apply_bf16_safe_rope, apply_unpadding, apply_flash_attention, apply_sequence_packing)[
        ::order
    ]:
        apply(model)
    assert (real_logits(model, inputs) - stock).abs().max() < 1e-5 * stock.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unpadded", [False, True])
def test_per_document_positions_do_not_shift(family, unpadded):
    """A document's logits are the same bits at any place in a row, and those of it alone."""
    model = build(family)
    ids = batch(family, rows=1, length=11, padding=None)["input_ids"]
    stock = model(ids).logits
    apply_bf16_safe_rope(model, per_document=True)
    apply_sequence_packing(model)
    if unpadded:
        apply_unpadding(model)
    before = torch.full((1, 7), 5)
    row, documents = torch.cat([before, ids], 1), torch.tensor([[1] * 7 + [2] * 11])
    far = 100_000 + torch.arange(18)[None]
    near = model(input_ids=row, document_ids=documents).logits
    shifted = model(input_ids=row, document_ids=documents, position_ids=far).logits
    assert torch.equal(near, shifted)
    assert (near[:, 7:] - stock).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing(family):
    model = build(family).train()
    apply_bf16_safe_rope(model)
    inputs = batch(family)
    model(**inputs).loss.backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs).loss.backward()
    assert all(torch.equal(p.grad, q) for p, q in zip(model.parameters(), plain, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_check_rope(family):
    assert check_rope(build(family)) == 1
    with pytest.raises(
        SurgeryError, match=r"rotary_emb: inv_freq \(torch.bfloat16\) is off by .* bf16_safe_rope"
    ):
        check_rope(build(family).bfloat16())
    rounded = build(family)
    rounded.model.rotary_emb.inv_freq.data = rounded.model.rotary_emb.inv_freq.bfloat16().float()
    with pytest.raises(SurgeryError, match="is off by"):
        check_rope(rounded)
    changed = build(family)
    changed.config.rope_parameters["rope_theta"] = 77.0
    with pytest.raises(SurgeryError, match="rope_theta was changed later"):
        check_rope(changed)
    grown = build(family, rope_parameters={"rope_type": "dynamic", "rope_theta": 500.0, "factor": 4.0})
    grown(**batch(family, length=60))
    assert check_rope(grown) == 1, "dynamic frequencies have followed a long sequence"
    for model in (build(family).bfloat16(), rounded, changed):
        apply_bf16_safe_rope(model)
        assert check_rope(model) == 0


def test_what_it_does_not_go_with():
    model = build("llama")
    apply_alibi(model)
    with pytest.raises(Conflict, match="attention positions: taken by alibi; undo that first"):
        apply_bf16_safe_rope(model)
    other = build("llama")
    apply_bf16_safe_rope(other)
    with pytest.raises(Conflict, match="attention positions: taken by bf16_safe_rope; undo that first"):
        apply_alibi(other)
    with pytest.raises(NoEffect):
        apply_bf16_safe_rope(build("bert"))
