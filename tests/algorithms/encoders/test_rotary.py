"""`rotary`: relative positions, any length, two bases, packed rows, and what it refuses."""

import pytest
import torch
from families import POSITIONS, batch, build
from transformers import (
    AutoModel,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from cadenza.algorithms import (
    apply_alibi,
    apply_flash_attention,
    apply_no_bias,
    apply_pre_norm,
    apply_qk_norm,
    apply_rms_norm,
    apply_rotary,
    apply_sequence_packing,
    apply_sliding_window,
    apply_unpadding,
)
from cadenza.attention.rotary.rotation import Rotation
from cadenza.surgery import Conflict, NoEffect, SurgeryError

FAMILIES = ("bert", "roberta", "electra", "distilbert", "albert")


@pytest.mark.parametrize("family", FAMILIES)
def test_only_distances_count(family):
    model = build(family, auto=AutoModel).double()
    apply_rotary(model)
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    at = torch.arange(9)[None]
    here, moved, spread = (
        model(ids, attention_mask=mask, position_ids=places).last_hidden_state
        for places in (at, at + 10_000, 2 * at)
    )
    torch.testing.assert_close(here, moved, rtol=0, atol=1e-10)
    assert (here - spread).abs().max() > 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_and_longer_than_the_table(family):
    model = build(family).double()
    apply_rotary(model)
    left, right = (batch(family, padding=side, length=POSITIONS + 9) for side in ("left", "right"))
    found = [model(x["input_ids"], attention_mask=x["attention_mask"]).logits for x in (left, right)]
    for row in range(3):
        alone = left["input_ids"][row][left["attention_mask"][row].bool()][None]
        expected = model(alone).logits[0]
        real = found[0][row][left["attention_mask"][row].bool()]
        torch.testing.assert_close(real, expected, rtol=0, atol=1e-10)
    assert torch.isfinite(found[1]).all()


@pytest.mark.parametrize("unpad", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_compute_what_they_do_alone(family, unpad):
    model = build(family).double()
    apply_rotary(model, theta=50.0)
    apply_sequence_packing(model)
    apply_flash_attention(model, "sdpa")
    if unpad:
        apply_unpadding(model)
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    documents = torch.tensor([[1] * 5 + [2] * 7, [3] * 3 + [4] * 6 + [-1] * 3])
    logits = model(ids, attention_mask=(documents > 0).long(), document_ids=documents).logits
    for number in range(1, 5):
        there = documents == number
        expected = model(ids[there][None]).logits[0]
        torch.testing.assert_close(logits[there], expected, rtol=0, atol=1e-10)


def test_layers_with_a_window_have_a_theta_of_their_own_in_any_order():
    results = []
    for order in ("rotary first", "window first"):
        model = build("bert", num_hidden_layers=3).double()
        steps = [
            lambda m: apply_rotary(m, 1000.0, 20.0),
            lambda m: apply_sliding_window(m, 100, global_every=2),
        ]
        for step in steps if order == "rotary first" else steps[::-1]:
            step(model)
        results.append(model(torch.arange(3, 20)[None]).logits)
    model = build("bert", num_hidden_layers=3).double()
    apply_rotary(model, 1000.0)
    assert torch.equal(*results)
    assert (results[0] - model(torch.arange(3, 20)[None]).logits).abs().max() > 1e-7


def test_bfloat16_is_rounded_once():
    """At position 100,000 angles in bfloat16 would be off by whole turns."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 4, 64, generator=generator).bfloat16() for _ in range(2))
    places = 100_000 + torch.arange(4)[None]
    rotation = Rotation(10_000.0)
    low = rotation.rotate(query, key, rotation.positions(places, 64, torch.bfloat16), windowed=False)
    wide = rotation.positions(places, 64, torch.float64)
    exact = rotation.rotate(query.double(), key.double(), wide, windowed=False)
    for found, expected in zip(low, exact, strict=True):
        assert found.dtype == torch.bfloat16
        error = (found.double() - expected).abs() / expected.abs().clamp(min=1e-2)
        assert error.max() <= 2**-8 + 1e-4  # the rounding of bfloat16, and float32's before it


def test_gradient_checkpointing_computes_the_same():
    gradients = []
    for checkpoint in (False, True):
        model = build("bert").double().train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        apply_rotary(model)
        apply_pre_norm(model)
        if checkpoint:
            model.gradient_checkpointing_enable()
        model(**batch("bert")).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_it_is_a_kind_of_positions():
    model = build("bert")
    apply_alibi(model)
    with pytest.raises(Conflict, match="alibi or rotary is in place already"):
        apply_rotary(model)


def test_decoders_are_refused():
    with pytest.raises(SurgeryError, match="rotary is for encoders"):
        apply_rotary(build("bert", is_decoder=True))
    for family in ("gpt2", "llama", "modernbert"):
        with pytest.raises(NoEffect):
            apply_rotary(build(family))


def test_odd_heads_are_refused():
    with pytest.raises(SurgeryError, match="a head has 9; make that even"):
        apply_rotary(build("bert", hidden_size=36))


def test_an_attention_called_alone_is_an_error():
    model = build("bert")
    apply_rotary(model)
    with pytest.raises(SurgeryError, match="call the whole model"):
        model.bert.encoder.layer[0](torch.randn(1, 4, 32))


def test_xlm_roberta_is_roberta():
    """It has classes of its own, and the numbers of RoBERTa, which the reference has."""
    sizes = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = XLMRobertaForMaskedLM(XLMRobertaConfig(**sizes, intermediate_size=48)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    other = RobertaForMaskedLM(RobertaConfig(**sizes, intermediate_size=48)).eval()
    other.load_state_dict(model.state_dict())
    ids = torch.arange(3, 12)[None]
    for apply in (apply_rotary, apply_pre_norm, apply_no_bias, apply_qk_norm, apply_rms_norm):
        before = model(ids).logits
        apply(model)
        apply(other)
        assert (model(ids).logits - before).abs().max() > 1e-3
        assert torch.equal(model(ids).logits, other(ids).logits)
