"""Sharding by a recipe: Composer's configs, and which modules are sharded one by one."""

import warnings
from dataclasses import fields

import pytest
from composer.utils.parallelism import FSDP2Config, FSDPConfig
from torch import nn
from transformers import BertConfig, BertModel

from cadenza.recipe import RecipeError
from cadenza.recipe.parallelism import CONFIGS, is_layer, mark_layers, parallelism


@pytest.mark.parametrize(("name", "cls"), [("fsdp", FSDPConfig), ("fsdp2", FSDP2Config)])
@pytest.mark.parametrize("options", [None, {}, {"state_dict_type": "full"}])
def test_shards_are_put_together_in_checkpoints(name, cls, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parallelism({name: options}, cuda=True)
    config = getattr(found, name)
    assert type(config) is cls
    assert config.state_dict_type == "full"
    assert [getattr(found, other) for other in ("fsdp", "fsdp2", "tp") if other != name] == [None, None]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("fsdp", "_device_mesh"),
        ("fsdp", "auto_wrapp"),
        ("fsdp2", "device_mesh"),
        ("fsdp2", "_sync_module_states"),
    ],
)
def test_what_is_no_option_of_sharding(name, option):
    """Private fields, and meshes, which YAML can't say."""
    assert option == "auto_wrapp" or option in {f.name for f in fields(CONFIGS[name])}
    with pytest.raises(RecipeError, match=rf"^unknown key train\.parallelism_config\.{name}\.{option}; "):
        parallelism({name: {option: 1}}, cuda=True)


def test_other_warnings_of_sharding_are_heard(monkeypatch):
    def warns(**options):
        warnings.warn("no such shards", stacklevel=1)
        return FSDP2Config(**options)

    monkeypatch.setitem(CONFIGS, "fsdp2", warns)
    monkeypatch.setattr("cadenza.recipe.parallelism.fields", lambda config: fields(FSDP2Config))
    with pytest.warns(UserWarning, match="no such shards") as heard:
        parallelism({"fsdp2": {}}, cuda=True)
    assert len(heard) == 1


def test_layers_are_sharded_one_by_one():
    config = BertConfig(hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8)
    holder = nn.Module()
    holder.model = BertModel(config)
    mark_layers(holder)
    assert holder.model.fsdp_wrap_fn is is_layer
    assert [module for module in holder.modules() if is_layer(module)] == list(holder.model.encoder.layer)
