"""Bad values that show when a recipe is built: said in a dry run, with the file that holds them."""

import pytest

from cadenza.data import DataError, hub
from cadenza.models import ModelError
from cadenza.recipe import RecipeError
from cadenza.recipe.run import dry_run
from cadenza.recipe.trainer import trainer_settings

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 16, eval_fraction: 0.2}
train: {global_batch_size: 8}
"""


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (
            ["data.max_seq_len=1024"],
            "data.max_seq_len is 1024; the model has 512 positions: shorten",
        ),
        (
            ["model.model_type=roberta", "data.max_seq_len=513"],
            "max_seq_len is 513; the model has 511",
        ),
        (["model.lora={r: 0}"], "model.lora.r is 0; it must be at least 1"),
        (["model.lora={r: 1.5}"], "model.lora.r is 1.5; it must be an integer in [1, 65536]"),
        (["model.lora={lora_dropout: 1}"], "model.lora.lora_dropout is 1; it must lie in [0, 1)"),
        (["model.lora={lora_alpha: -1}"], "model.lora.lora_alpha is -1; it must lie in (0, 1000000]"),
        (["model.config.hiden_size=3"], "model.config.hiden_size is not a field of BertConfig; nearest"),
        (["data.source=no/*.jsonl"], "data.source: no file matches no/*.jsonl"),
        (["train.parallelism_config.fsdp=3"], "train.parallelism_config.fsdp must be a mapping, not 3"),
        (["loggers.console=5"], "loggers.console must be a mapping, not 5"),
    ],
)
def test_a_dry_run_refuses_it(recipe, pairs, message):
    with pytest.raises((RecipeError, ModelError, DataError)) as error:
        dry_run(recipe(*pairs))
    assert str(error.value).startswith("command line: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["{a: 1}", "0", "-3", "[1]"])
def test_a_model_that_can_not_be_built_is_one_line(recipe, value):
    with pytest.raises(ModelError, match=r"^model: bert can't be built: ") as error:
        dry_run(recipe(f"model.config.hidden_size={value}"))
    assert "\n" not in str(error.value)


def test_without_a_table_of_positions_a_sequence_may_be_longer(recipe):
    reports, _ = dry_run(recipe("data.max_seq_len=1024", "algorithms.alibi={}"))
    assert [report.surgery for report in reports] == ["ALiBi()"]


def test_a_logger_may_be_switched_off(recipe):
    console = "loggers.console={log_interval: 1ba}"
    assert len(trainer_settings(recipe(console))["loggers"]) == 1
    assert trainer_settings(recipe(console, "loggers.console=false"))["loggers"] == []
