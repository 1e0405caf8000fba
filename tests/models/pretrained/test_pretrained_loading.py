"""A pretrained model: from a folder or the Hub, whole, or an error that says why not."""

import pytest
import torch
from families import build

from cadenza.models import ModelError, causal_lm, masked_lm
from cadenza.models.pretrained import loading


@pytest.mark.parametrize(("make", "family"), [(masked_lm, "bert"), (causal_lm, "llama")])
def test_weights_of_a_folder_with_other_fields(make, family, tmp_path, monkeypatch):
    model = build(family, seed=4)
    model.save_pretrained(tmp_path / "some")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path / "some"), "~/some"):
        loaded = make(pretrained=name, config={"initializer_range": 0.5}).model
        assert type(loaded) is type(model)
        assert loaded.config.initializer_range == 0.5
        state = model.state_dict()
        assert all(torch.equal(state[key], tensor) for key, tensor in loaded.state_dict().items())


class Recorded:
    """An `AutoModel` class that notes what it is asked for, and has nothing."""

    def __init__(self, error):
        self.error = error

    def from_pretrained(self, source, **options):
        self.asked = source, options
        raise self.error


@pytest.mark.parametrize("reachable", [True, False])
def test_a_name_of_the_hub(reachable, monkeypatch):
    monkeypatch.setattr(loading.hub, "reachable", lambda: reachable)
    monkeypatch.setattr(loading, "safe_weights", lambda: {"use_safetensors": True})
    auto = Recorded(OSError("no  such\nthing"))
    with pytest.raises(ModelError) as error:
        loading.pretrained_model(auto, "some/name", {"field": 3}, "eager")
    assert auto.asked == (
        "some/name",
        {
            **{"attn_implementation": "eager", "local_files_only": not reachable},
            **{"use_safetensors": True, "field": 3, "output_loading_info": True},
        },
    )
    reason = "OSError: no such thing" if reachable else "it isn't cached, and the Hub doesn't answer"
    assert str(error.value) == f"model.pretrained: some/name can't be loaded ({reason})"


@pytest.mark.parametrize("reachable", [True, False])
def test_a_folder_is_never_looked_for_on_the_hub(reachable, tmp_path, monkeypatch):
    monkeypatch.setattr(loading.hub, "reachable", lambda: reachable)
    auto = Recorded(ValueError("damaged"))
    with pytest.raises(ModelError, match=r"can't be loaded \(ValueError: damaged\)"):
        loading.pretrained_model(auto, str(tmp_path), {}, "sdpa")
    assert auto.asked[0] == str(tmp_path)
    assert auto.asked[1]["local_files_only"]


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "../nowhere"])
def test_a_folder_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as error:
        masked_lm(pretrained=name)
    assert str(error.value) == f"model.pretrained: there is no folder {name}"


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "distilbert", "electra", "albert"])
def test_weights_of_the_encoder_must_be_there(family, tmp_path):
    """Else they would be random, and training would go on from nothing."""
    model = build(family)
    state = model.state_dict()
    dropped = [key for key in state if key.startswith(f"{model.base_model_prefix}.")][-4:]
    model.save_pretrained(tmp_path, state_dict={k: v for k, v in state.items() if k not in dropped})
    said = rf"^model.pretrained: {tmp_path} lacks weights of {type(model).__name__} \(.* and 1 more\)"
    with pytest.raises(ModelError, match=said):
        masked_lm(pretrained=str(tmp_path))


def test_a_head_may_be_new(tmp_path):
    base = build("bert", seed=3).base_model
    base.save_pretrained(tmp_path)
    loaded = masked_lm(pretrained=str(tmp_path)).model
    assert torch.equal(loaded.get_input_embeddings().weight, base.get_input_embeddings().weight)


def test_a_published_mosaicbert_is_not_taken_for_a_stock_bert(tmp_path):
    model = build("bert")
    state = {key.replace(".self.query.", ".Wqkv."): value for key, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ModelError, match=r"published layout: read it by load_mosaicbert, write it by save$"):
        masked_lm(pretrained=str(tmp_path))
