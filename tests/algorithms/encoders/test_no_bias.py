"""`no_bias`: which biases go and which stay, and the token types of a model that has one."""

import pytest
import torch
from families import build, classifier
from transformers import AutoModel, AutoModelForSequenceClassification

from cadenza.algorithms import apply_no_bias, apply_rms_norm, apply_vocab_padding
from cadenza.models import load, save
from cadenza.surgery import NoEffect, SurgeryError

FAMILIES = ("bert", "roberta", "electra", "distilbert", "albert")
KEPT = {
    "bert": {"cls.predictions.bias", "cls.predictions.decoder.bias"},
    "roberta": {"lm_head.bias", "lm_head.decoder.bias"},
    "electra": {"generator_lm_head.bias"},
    "distilbert": {"vocab_projector.bias"},
    "albert": {"predictions.bias", "predictions.decoder.bias"},
}


def biases(model):
    return {name for name in model.state_dict() if name.rpartition(".")[2] == "bias"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_keeps_its_bias_or_loses_it(family):
    model = build(family)
    apply_no_bias(model)
    assert biases(model) == KEPT[family]
    bare = build(family)
    apply_no_bias(bare, keep_output=False)
    assert biases(bare) == set()
    difference = model(torch.arange(3, 9)[None]).logits - bare(torch.arange(3, 9)[None]).logits
    bias = dict(model.named_parameters(remove_duplicate=False))[min(KEPT[family])]
    torch.testing.assert_close(difference, bias.expand_as(difference), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier_keeps_the_bias_of_its_labels(family):
    model = classifier(family)
    apply_no_bias(model)
    kept = biases(model)
    assert len(kept) == 1
    assert model.get_parameter(kept.pop()).shape == (3,)


@pytest.mark.parametrize("keep_output", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded(family, keep_output, tmp_path):
    model = build(family)
    apply_no_bias(model, keep_output)
    apply_vocab_padding(model)
    save(model, tmp_path)
    ids = torch.arange(3, 9)[None]
    assert torch.equal(load(tmp_path)(ids).logits, model(ids).logits)


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "albert"])
def test_one_token_type_is_a_bias(family):
    model = build(family, auto=AutoModel, type_vocab_size=1)
    ids = torch.arange(3, 9)[None]
    before = model(ids).last_hidden_state
    embeddings = model.embeddings
    row = embeddings.token_type_embeddings.weight
    report = apply_no_bias(model)
    assert not any("token_type" in name for name in model.state_dict())
    assert torch.isfinite(model(ids).last_hidden_state).all()
    with pytest.raises(SurgeryError, match="the model has one token type"):
        model(ids, token_type_ids=torch.ones_like(ids))
    report.undo()
    assert embeddings.token_type_embeddings.weight is row
    assert torch.equal(model(ids).last_hidden_state, before)


def test_two_token_types_stay():
    model = build("bert")
    apply_no_bias(model)
    assert "bert.embeddings.token_type_embeddings.weight" in model.state_dict()


@pytest.mark.parametrize("family", ["llama", "gpt2", "modernbert"])
def test_other_families(family):
    with pytest.raises(NoEffect):
        apply_no_bias(build(family))


def test_rms_norm_on_a_decoder():
    model = build("gpt2")
    apply_rms_norm(model)
    assert not any("ln_" in name and name.endswith("bias") for name in model.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_on_a_saved_encoder_is_initialized(family, tmp_path):
    model = build(family)
    apply_no_bias(model)
    save(model, tmp_path)
    torch.manual_seed(0)
    found = load(tmp_path, AutoModelForSequenceClassification, num_labels=3)
    assert all(0 < p.abs().max() < 10 for name, p in found.named_parameters() if p.ndim > 1), "empty memory"
    assert torch.equal(
        found.base_model(torch.arange(3, 9)[None])[0], model.base_model(torch.arange(3, 9)[None])[0]
    )
