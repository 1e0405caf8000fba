"""Options of quantization that select layers, and averages of what it stores."""

import re
from types import SimpleNamespace

import pytest
import torch
from composer.algorithms import EMA
from composer.core import Event
from families import batch, build
from torch.optim.swa_utils import AveragedModel
from transformers import AutoModelForSequenceClassification

from cadenza.algorithms import PostTrainingQuantization, apply_post_training_quantization
from cadenza.models import load, save
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery import SurgeryError


def quantized(name="nf4", **options):
    model = build("llama")
    apply_post_training_quantization(model, name, **options)
    return model


def layers(model):
    return {path for path, module in model.named_modules() if isinstance(module, Quantized)}


def test_a_text_is_one_glob():
    assert layers(quantized(only="*.mlp.*")) == layers(quantized(only=["*.mlp.*"]))
    assert layers(quantized(except_="*.mlp.*")) == layers(quantized(except_=["*.mlp.*"]))
    assert repr(PostTrainingQuantization(only="*.mlp.*")) == repr(PostTrainingQuantization(only=["*.mlp.*"]))


@pytest.mark.parametrize("options", [{"only": ["*.mlp.*", "*.mpl.*"]}, {"except_": "*.mpl.*"}])
def test_a_glob_that_matches_nothing_is_refused(options):
    with pytest.raises(
        SurgeryError, match=r"(only|except): '\*\.mpl\.\*' matches no linear layer of LlamaForCausalLM"
    ):
        quantized(**options)


@pytest.mark.parametrize(
    ("glob", "near"),
    [
        ("*.mlp", "model.layers.*.mlp."),  # a module around layers
        ("model.layers.0.mlp.up_prj", "model.layers.*.mlp.up_proj"),
        ("*.embed_tokens", "lm_head"),  # a module, but no linear layer
        ("layers.*.mlp.*", "model.layers.*.mlp."),  # the root's name is missing
        ("lm_haed", "lm_head"),
    ],
)
@pytest.mark.parametrize("option", ["only", "except_"])
def test_near_paths_are_named(glob, near, option):
    """A layer's number is a star in them, so that each kind of layer is there once."""
    with pytest.raises(SurgeryError) as error:
        quantized(**{option: ["*.mlp.*", glob]})
    said, paths = str(error.value).split("; near: ")
    assert said == f"{option.rstrip('_')}: {glob!r} matches no linear layer of LlamaForCausalLM"
    assert near in paths
    assert not re.search(r"\d", paths)


def test_a_layer_that_is_quantized_already_still_matches():
    model = quantized(only="*.mlp.*")
    assert len(apply_post_training_quantization(model, "nf4", only="*.mlp.*")) == 0


def test_what_trains_beside_frozen_weights_is_said():
    model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False), torch.nn.Linear(64, 2))
    assert "2 modules changed; " in (line := first_line(model, only="*"))
    assert line.endswith("they are frozen, and 2 other parameters still train")
    assert not any(p.requires_grad for p in model.parameters() if p.ndim > 1)
    bare = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False))
    assert first_line(bare, only="*").endswith("they are frozen, and nothing is left to train")


def first_line(model, **options):
    return str(apply_post_training_quantization(model, "nf4", **options)).splitlines()[0]


def test_a_glob_may_match_the_old_head_alone(tmp_path):
    save(quantized(only=["*.mlp.*", "lm_head"]), tmp_path)
    model = load(tmp_path, AutoModelForSequenceClassification)
    assert layers(model) == {path for path in layers(quantized()) if ".mlp." in path}


def test_averages_of_codes_are_refused():
    model = build("llama")
    state = SimpleNamespace(model=model, algorithms=[EMA("2ba"), PostTrainingQuantization()])
    with pytest.raises(SurgeryError, match="EMA would average the codes of quantized layers"):
        state.algorithms[1].apply(Event.INIT, state, None)
    assert not layers(model)


def test_swa_copies_codes():
    model = quantized("nf4-dq")
    averaged = AveragedModel(model)
    for _ in range(3):
        averaged.update_parameters(model)
    assert torch.equal(averaged.module(**batch("llama")).logits, model(**batch("llama")).logits)
