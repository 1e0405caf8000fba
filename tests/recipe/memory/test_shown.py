"""The table of a dry run: from a config alone, without the Hub, and before weights are built."""

import json

import pytest

from cadenza.data import hub
from cadenza.models import ModelError
from cadenza.recipe import RecipeError, load
from cadenza.recipe.memory import shown

RECIPE = """
model: {objective: causal_lm, model_type: llama}
tokenizer: {name: byte_bpe, vocab_size: 600}
data: {max_seq_len: 64}
train: {global_batch_size: 8, device_train_microbatch_size: 1}
"""
CONFIG = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 96, "dtype": "bfloat16"},
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
}
PARAMETERS = 2 * 96 * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 3 * 16


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)


@pytest.fixture
def recipe(tmp_path):
    def recipe(*pairs):
        path = tmp_path / "recipe.yaml"
        path.write_text(RECIPE)
        return load([str(path)], list(pairs))

    return recipe


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_a_folder_with_a_config_alone_is_enough(recipe, folder, capsys):
    """Weights are float32 though the config says bfloat16, and so are the buffers of the rotation."""
    found = shown.show_memory(recipe(f"model.pretrained={folder}"), 8, 80.0)
    assert found.parts["weights"] == 4 * PARAMETERS + 2 * 4 * 4
    out = capsys.readouterr().out
    assert out.startswith("memory of each of 8 CUDA devices, amp_bf16, micro-batches of 1 row of 64 tokens:")
    assert "of 80.0 GiB are left for what isn't counted" in out
    half = shown.show_memory(recipe(f"model.pretrained={folder}", "model.config.dtype=bfloat16"), 1, 80.0)
    assert half.parts["weights"] == 2 * PARAMETERS + 2 * 4 * 4


def test_without_the_hub_a_name_is_an_error_of_one_line(recipe):
    with pytest.raises(ModelError) as caught:
        shown.show_memory(recipe("model.pretrained=some/model"))
    said = "command line: model.pretrained: the config of some/model can't be read (it isn't cached, and the "
    assert str(caught.value) == said + "Hub doesn't answer)"


def test_sharding_means_cuda_devices_though_none_is_here(recipe, folder):
    sharded = recipe(f"model.pretrained={folder}", "train.parallelism_config={fsdp2: {}}")
    assert shown.show_memory(sharded, 8).setting.cuda
    assert not shown.show_memory(recipe(f"model.pretrained={folder}"), 8).setting.cuda


def test_a_model_that_this_machine_can_not_hold_ends_a_dry_run(recipe, folder):
    found = shown.show_memory(recipe(f"model.pretrained={folder}"))
    shown.refuse_too_large(found)
    found.whole_weights = 2**60
    with pytest.raises(
        RecipeError, match=r"^dry run: it ends after the table: the model's weights take 1073"
    ):
        shown.refuse_too_large(found)
