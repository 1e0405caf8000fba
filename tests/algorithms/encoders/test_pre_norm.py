"""`pre_norm`: where norms go, what it refuses, and undos across it."""

import pytest
import torch
from families import build
from transformers import AutoModel, BertConfig, BertModel

from cadenza.algorithms import apply_glu, apply_no_bias, apply_pre_norm, apply_rms_norm, apply_unpadding
from cadenza.attention.proof.subject import is_tested
from cadenza.surgery import NoEffect, SurgeryError


def test_no_parameter_is_added_or_lost():
    model = build("bert")
    before = {id(p) for p in model.parameters()}
    apply_pre_norm(model)
    assert {id(p) for p in model.parameters()} == before
    keys = [name for name in model.state_dict() if name.endswith("norm.weight")]
    at = "bert.encoder.layer"
    moved = [f"{at}.0.intermediate.norm", f"{at}.1.attention.self.norm", f"{at}.1.intermediate.norm"]
    assert keys == [f"{path}.weight" for path in moved]


def test_what_was_set_on_a_norm_moves_with_it():
    model, seen = build("bert"), []
    norm = model.bert.encoder.layer[0].output.LayerNorm
    norm.register_forward_hook(lambda module, *_: seen.append(module))
    report = apply_pre_norm(model)
    assert model.bert.encoder.layer[1].attention.self.norm is norm
    model(torch.arange(3, 9)[None])
    assert seen == [norm]
    report.undo()
    assert model.bert.encoder.layer[0].output.LayerNorm is norm


@pytest.mark.parametrize("family", ["albert", "modernbert", "llama", "gpt2"])
def test_other_families_have_nothing_to_change(family):
    with pytest.raises(NoEffect):
        apply_pre_norm(build(family))


def test_layers_in_two_places_are_refused():
    model = build("bert")
    model.bert.encoder.layer[1] = model.bert.encoder.layer[0]
    with pytest.raises(SurgeryError, match="a layer stands in two places"):
        apply_pre_norm(model)


def test_cross_attention_is_refused():
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 90}
    config = BertConfig(**sizes, num_hidden_layers=2, is_decoder=True, add_cross_attention=True)
    with pytest.raises(SurgeryError, match="cross-attention"):
        apply_pre_norm(BertModel(config))


def test_a_bias_comes_back_to_a_moved_norm_in_the_dtype_of_the_model():
    model = build("bert")
    norm = model.bert.encoder.layer[0].output.LayerNorm
    bias = norm.bias.detach().clone()
    rms = apply_rms_norm(model)
    pre = apply_pre_norm(model)
    model.double()
    rms.undo()
    assert norm.bias.dtype == torch.float64
    assert torch.equal(norm.bias, bias.double())
    pre.undo()
    assert model.bert.encoder.layer[0].output.LayerNorm.bias is norm.bias


@pytest.mark.parametrize("first", ["glu", "no_bias"])
@pytest.mark.parametrize("undone", ["glu", "no_bias"])
def test_a_bias_that_two_techniques_took_comes_back_after_both(first, undone):
    model = build("bert")
    dense = model.bert.encoder.layer[0].intermediate.dense
    bias, reports = dense.bias, {}
    for name in (first, "no_bias" if first == "glu" else "glu"):
        reports[name] = {"glu": apply_glu, "no_bias": apply_no_bias}[name](model)
    reports.pop(undone).undo()
    assert dense.bias is None
    model(torch.arange(3, 9)[None])
    next(iter(reports.values())).undo()
    assert dense.bias is bias


def test_the_family_is_still_a_tested_one():
    """So later techniques aren't proved anew, and work on the meta device."""
    with torch.device("meta"):
        model = build("bert", auto=AutoModel)
    apply_pre_norm(model)
    assert is_tested(model)
    apply_unpadding(model)
