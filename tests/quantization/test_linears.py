"""Which layers can be stored otherwise, and the reason for each that can't."""

import pytest
import torch
from families import build
from torch import nn
from torch.nn.utils import prune
from transformers import BertConfig, BertForSequenceClassification
from transformers.pytorch_utils import Conv1D

from cadenza.algorithms import (
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
)
from cadenza.quantization.eligible import globs, ineligible, wanted
from cadenza.surgery import SurgeryError

HEAD = "it is the output head"
TIED = "its weight is tied to another module's"


@pytest.mark.parametrize(
    ("only", "but", "found"),
    [
        (None, None, ["a.q", "a.k", "b.q"]),
        (None, [], ["a.q", "a.k", "b.q"]),
        (["a.*"], None, ["a.q", "a.k"]),
        (["a.k", "*.q"], None, ["a.q", "a.k", "b.q"]),
        (None, ["*.q"], ["a.k"]),
        (None, ["a.k", "b.*"], ["a.q"]),
        (["a.*"], ["*.q"], ["a.k"]),
        ([], None, []),
        (["A.*", "q"], None, []),
    ],
)
def test_globs_of_paths(only, but, found):
    assert [path for path in ("a.q", "a.k", "b.q") if wanted(path, only, but)] == found


def reasons(model, heads=True, **kinds):
    return ineligible(model, "Mine", heads, **kinds)


def test_the_last_linear_layer_is_the_head():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.ReLU())
    assert reasons(model) == {"1.1": HEAD}
    assert reasons(model, heads=False) == {}
    assert reasons(nn.Linear(2, 2)) == {}, "the whole model is not its head"
    assert reasons(nn.Sequential(nn.ReLU())) == {}


def test_heads_of_transformers_stand_outside_of_the_base_model():
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    model = BertForSequenceClassification(BertConfig(vocab_size=90, **sizes))
    assert reasons(model) == {"classifier": HEAD}
    assert reasons(model.bert) == {}
    bert = build("bert", tie_word_embeddings=False)
    assert reasons(bert) == {"cls.predictions.decoder": HEAD}
    both = nn.ModuleList([model, bert, nn.Linear(2, 2)])
    assert reasons(both) == {"0.classifier": HEAD, "1.cls.predictions.decoder": HEAD}


def test_a_head_inside_of_the_base_model_is_found_by_its_embeddings():
    model = build("llama")
    model.get_output_embeddings = lambda: model.model.layers[0].mlp.up_proj
    assert reasons(model) == {"model.layers.0.mlp.up_proj": HEAD, "lm_head": HEAD}


def test_tied_layers():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Embedding(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])
    model[0].weight = model[1].weight
    assert reasons(model) == {"0": TIED, "3": HEAD}
    assert reasons(model, heads=False) == {}
    model[3].weight = model[1].weight
    assert reasons(model)["3"] == TIED
    shared = nn.Linear(2, 2)
    assert reasons(nn.Sequential(shared, shared, nn.Linear(2, 2))) == {"2": HEAD}, "one module, called twice"


def test_layers_that_do_not_fit():
    class Mine(nn.Linear):
        pass

    model = nn.ModuleDict(
        {
            "mine": Mine(2, 2),
            "conv1d": Conv1D(2, 2),
            "empty": nn.Linear(0, 2),
            "one": nn.Linear(1, 1),
            "whole": nn.Linear(2, 2),
            "conv": nn.Conv2d(1, 1, 1),
        }
    )
    model["whole"].weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int8), requires_grad=False)
    found = reasons(model, heads=False)
    assert found == {
        "mine": "Mine is not nn.Linear",
        "conv1d": "Conv1D is not nn.Linear",
        "empty": "its weight is empty",
        "whole": "its weight is of torch.int8",
    }
    found = reasons(model, heads=False, kinds=(nn.Linear, nn.Conv1d))
    assert found["mine"] == "Mine is not nn.Linear or nn.Conv1d"
    assert "conv" not in found
    assert reasons(nn.Sequential(type("Mine", (nn.Conv2d,), {})(1, 1, 1)), kinds=(nn.Conv2d,)).keys() == {"0"}


@pytest.mark.parametrize(
    "compute",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: nn.utils.weight_norm(layer),
        lambda layer: nn.utils.spectral_norm(layer),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_weight_that_is_computed(compute):
    model = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    compute(model[0])
    found = {"0": "its weight is computed from other tensors, as after pruning or weight_norm"}
    assert reasons(model, heads=False) == found
    assert apply_post_training_quantization(model, "nf4").skipped == {**found, "2": HEAD}
    assert model[0](torch.ones(1, 64)).shape == (1, 8)


def test_a_parametrized_layer():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    nn.utils.parametrizations.weight_norm(model[0])
    assert reasons(model, heads=False) == {"0": "ParametrizedLinear is not nn.Linear"}


@pytest.mark.parametrize("given", [7, ["a", 7], {"a": 1}])
def test_globs_are_text(given):
    assert globs("only", "*.mlp.*") == ["*.mlp.*"]
    assert globs("only", ("a", "b")) == ["a", "b"]
    assert globs("only", None) is None
    with pytest.raises(SurgeryError, match=r"except is .*; it must be a glob of module paths"):
        globs("except", given)


def test_layers_whose_weight_others_read():
    attention, layer = nn.MultiheadAttention(4, 2), nn.TransformerEncoderLayer(4, 2, 4)
    attention.out_proj = nn.Linear(4, 4)
    attention.inner = nn.Sequential(nn.Linear(4, 4))
    found = reasons(nn.ModuleDict({"a": attention, "b": layer, "c": nn.Linear(2, 2)}), heads=False)
    assert found == {
        "a.out_proj": "MultiheadAttention reads its weight itself",
        "a.inner.0": "MultiheadAttention reads its weight itself",
        "b.self_attn.out_proj": "NonDynamicallyQuantizableLinear is not nn.Linear",
        "b.linear1": "TransformerEncoderLayer reads its weight itself",
        "b.linear2": "TransformerEncoderLayer reads its weight itself",
    }


def test_adapters_stay_and_what_they_adapt_does_not():
    adapted = nn.ModuleDict({"base_layer": nn.Linear(2, 2), "lora_A": nn.ModuleDict({"x": nn.Linear(2, 2)})})
    model = nn.ModuleDict({"q": adapted, "base_layer": nn.Linear(2, 2)})
    assert reasons(nn.ModuleList([model]), heads=False) == {
        "0.q.base_layer": "it is an adapter",
        "0.q.lora_A.x": "it is an adapter",
    }
    assert reasons(nn.ModuleDict({"q": adapted}), heads=False) == {"q.lora_A.x": "it is an adapter"}


def test_what_a_model_keeps_in_float32():
    model = build("bert", num_hidden_layers=1)
    model._keep_in_fp32_modules = ["intermediate", "key"]
    kept = "the model keeps it in float32"
    assert reasons(model, heads=False) == {
        "bert.encoder.layer.0.attention.self.key": kept,
        "bert.encoder.layer.0.intermediate.dense": kept,
    }
    model._keep_in_fp32_modules = None
    assert reasons(model, heads=False) == {}


def test_layers_that_another_technique_has_quantized():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    apply_low_precision_norm(model)
    report = apply_quantization_aware_training(model)
    name = report.surgery
    assert reasons(model, heads=False) == dict.fromkeys(("0", "2"), f"{name} is in place")
    assert ineligible(model, "QuantizationAwareTraining", heads=False) == {}


def test_a_layer_in_few_bits_is_no_linear_layer_any_more():
    model = nn.Sequential(nn.Linear(64, 2), nn.Linear(2, 2))
    apply_post_training_quantization(model, "int8", only=["0"])
    assert reasons(model, heads=False) == {}


def test_untying_says_so_to_the_model_and_the_undo_takes_it_back():
    model = build("llama", tie_word_embeddings=True)
    tied = dict(model.all_tied_weights_keys)
    assert tied == {"lm_head.weight": "model.embed_tokens.weight"}
    report = apply_post_training_quantization(model, "int8", only=["lm_head"], keep_original=True)
    assert model.all_tied_weights_keys == {}
    assert model.config.tie_word_embeddings is False
    report.undo()
    assert model.all_tied_weights_keys == tied
    assert model.config.tie_word_embeddings is True


def test_other_ties_stay_when_one_is_cut():
    model = build("llama", tie_word_embeddings=True)
    other = {"model.other.weight": "model.embed_tokens.weight"}
    model.all_tied_weights_keys = {**model.all_tied_weights_keys, **other}
    apply_post_training_quantization(model, "int8", only=["lm_head"])
    assert model.all_tied_weights_keys == other


def test_a_layer_apart_from_the_ties_cuts_none():
    model = build("llama", tie_word_embeddings=True)
    apply_post_training_quantization(model, "int8", only=["*.up_proj"])
    assert model.all_tied_weights_keys == {"lm_head.weight": "model.embed_tokens.weight"}
    assert model.config.tie_word_embeddings is True
