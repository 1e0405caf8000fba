"""The baselines of the MosaicBERT paper: BERT-Base and BERT-Large, with the attention of their time."""

from dataclasses import asdict

import pytest
import torch
import yaml
from paths import ROOT
from torch.nn import functional

from cadenza.models import masked_lm
from cadenza.recipe import load

ENCODERS = ("bert", "bert_large", "mosaicbert", "mosaicbert_large")
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def loaded(*names):
    return load([str(ROOT / f"yamls/{name}.yaml") for name in names], [])


def differing(one, other, path=""):
    """The dotted keys that differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return {path} if one != other else set()
    found = (differing(one.get(key), other.get(key), f"{path}.{key}") for key in {*one, *other})
    return set().union(*found)


def test_bert_large_is_bert_of_other_sizes_and_its_learning_rate():
    base, large = loaded("bert"), loaded("bert_large")
    sizes = {f".model.config.{key}" for key in LARGE}
    assert differing(asdict(base), asdict(large)) == {".name", ".optimizer.lr", *sizes}
    assert large.model.config.items() >= LARGE.items()


@pytest.mark.parametrize("size", ["", "_large"])
def test_a_baseline_is_evaluated_and_scheduled_as_its_mosaicbert(size):
    """Else their losses, and their times to one of them, couldn't be compared."""
    bert, mosaicbert = (asdict(loaded(name + size)) for name in ("bert", "mosaicbert"))
    dropout, masking = ".model.config.attention_probs_dropout_prob", ".data.mlm_probability"
    found = {key for key in differing(bert, mosaicbert) if not key.startswith(".algorithms.")}
    assert found == {".name", dropout, masking}
    assert not bert["algorithms"]
    assert (bert["data"]["mlm_probability"], mosaicbert["data"]["mlm_probability"]) == (0.15, 0.30)


@pytest.mark.parametrize("recipe", ENCODERS)
def test_the_eager_overlay_changes_attention_alone(recipe):
    plain, eager = loaded(recipe), loaded(recipe, "attention/eager")
    assert differing(asdict(plain), asdict(eager)) == {".model.attention"}
    assert yaml.safe_load((ROOT / "yamls/attention/eager.yaml").read_text()) == {
        "model": {"attention": "eager"}
    }


@pytest.mark.parametrize(("overlays", "fused"), [((), True), (("attention/eager",), False)])
def test_attention_is_computed_as_the_overlay_says(overlays, fused, monkeypatch):
    section = loaded("bert", "scale/cpu", *overlays).model
    model = masked_lm(section.model_type, config=section.config, attention=section.attention).model.eval()
    calls, usual = [], functional.scaled_dot_product_attention
    counted = lambda *args, **options: calls.append(args) or usual(*args, **options)  # noqa: E731
    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    model(torch.tensor([[2, 5, 3]]))
    assert len(calls) == (section.config["num_hidden_layers"] if fused else 0)
