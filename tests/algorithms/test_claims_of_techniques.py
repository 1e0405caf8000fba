"""What the techniques of attention claim: defaults, layers, the way of document ids, stock numbers or not."""

import pytest
import torch
from cases import CASES
from dense_anchor import ids_of, tokens
from families import batch, build
from torch import nn

from cadenza.algorithms import (
    AnchorAttention,
    SequencePacking,
    apply_anchor_attention,
    apply_flash_attention,
    apply_sequence_packing,
    apply_unpadding,
)
from cadenza.attention import attention_modules
from cadenza.attention.anchor import Anchor
from cadenza.attention.plan import plan_of
from cadenza.surgery import SurgeryError


@pytest.mark.parametrize("name", CASES)
def test_whether_stock_code_computes_the_same_from_the_weights(name):
    case = CASES[name]
    family = "bert" if "bert" in case.families else "llama"
    model, stock = build(family), build(family)
    case.apply(model)
    weights = model.state_dict()
    shapes = {key: weight.shape for key, weight in stock.state_dict().items()}
    fits = {key: weight.shape for key, weight in weights.items()} == shapes
    if fits:
        stock.load_state_dict(weights)
    inputs = {key: value for key, value in batch(family, padding=None).items() if key != "labels"}
    equal = fits and torch.allclose(model(**inputs).logits, stock(**inputs).logits, atol=1e-5)
    assert case.algorithm().keeps_outputs == equal


def readings(model):
    """How document ids are read: by each attention of `model`, and by its base model."""
    layers = [attention.attention_plan.documents for attention in attention_modules(model)]
    return [*layers, model.model.batch_plan.packing]


def test_anchors_are_the_default():
    assert repr(AnchorAttention()) == "AnchorAttention(mode='anchor', reset_positions=False)"
    model = build("llama")
    apply_anchor_attention(model)
    assert readings(model) == [Anchor("anchor", False)] * 3


def test_options_of_anchors_reach_every_plan():
    model = build("llama")
    apply_anchor_attention(model, "intra_document", True)
    assert readings(model) == [Anchor("intra_document", True)] * 3


@pytest.mark.parametrize("mode", ["intra_document", "full"])
def test_windows_go_with_every_mode_but_anchor(mode):
    assert len(apply_anchor_attention(build("mistral"), mode)) == 4
    with pytest.raises(SurgeryError, match="a sliding window of 16 tokens hides the anchor"):
        apply_anchor_attention(build("mistral"))
    assert len(apply_anchor_attention(build("mistral", sliding_window=None))) == 4


def test_a_window_of_one_layer_is_found():
    """Qwen3's layers say it themselves; the config's window is of some of them."""
    windowed = {"use_sliding_window": True, "sliding_window": 16}
    assert len(apply_anchor_attention(build("qwen3", max_window_layers=2, **windowed))) == 4
    with pytest.raises(SurgeryError, match=r"layers\.1\.self_attn: a sliding window of 16"):
        apply_anchor_attention(build("qwen3", max_window_layers=1, **windowed))


def test_packing_is_claimed_on_the_base_model_alone():
    model = build("bert")
    report = apply_sequence_packing(model)
    assert [change.path for change in report.changes] == ["", "bert"]
    assert model.bert.batch_plan.packing is True
    assert not any(m.attention_plan.claims() for m in attention_modules(model))
    assert SequencePacking().packs_rows


def test_unpadding_and_the_kernel_are_claimed_where_they_are_read():
    model = build("bert")
    apply_unpadding(model)
    assert model.bert.batch_plan.layout == "unpadded"
    apply_flash_attention(model, "sdpa")
    claimed = [*attention_modules(model), model.bert]
    assert [plan_of(m).kernel for m in claimed] == ["sdpa"] * 3


@pytest.mark.parametrize("apply", [apply_sequence_packing, apply_anchor_attention])
def test_any_module_around_models_may_be_operated_on(apply):
    """Each model in it takes document ids; the module around them is no model."""
    around = nn.ModuleDict({"a": build("llama"), "b": build("llama", seed=1)})
    ids = ids_of([[3, 4]])
    given = ids + 1 if apply is apply_sequence_packing else ids
    apply(around)
    for model in around.values():
        changed = tokens(ids)
        changed[0, 1] += 1
        outputs = [model(input_ids=x, document_ids=given).logits for x in (tokens(ids), changed)]
        assert torch.equal(outputs[0][:, 4:], outputs[1][:, 4:])
        assert not torch.equal(outputs[0][:, 1:4], outputs[1][:, 1:4])


def test_document_ids_may_be_none():
    model, stock = build("bert"), build("bert")
    apply_sequence_packing(model)
    ids = batch("bert", padding=None)["input_ids"]
    assert torch.equal(model(ids, document_ids=None).logits, stock(ids).logits)
