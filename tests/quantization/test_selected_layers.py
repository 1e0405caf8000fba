"""Options of quantization that select layers, and averages of what it stores."""

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
from cadenza.quantization.quantized_linear import Quantized
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
        SurgeryError, match=r"(only|except): '\*\.mpl\.\*' matches no module of LlamaForCausalLM"
    ):
        quantized(**options)


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
