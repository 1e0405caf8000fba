"""A run that goes on from a model after surgery, or with new words: its checkpoints, and its export."""

import json

import pytest
import torch
from families import build
from transformers import AutoTokenizer

from cadenza.algorithms import apply_alibi, apply_flash_attention, apply_glu, apply_vocab_padding
from cadenza.data import train_wordpiece
from cadenza.models import ModelError, export, load, save
from cadenza.models.pretrained import recorded
from cadenza.recipe import RecipeError, run
from cadenza.recipe.continuing.surgeries import with_recorded

RECIPE = """
name: tiny
data: {max_seq_len: 24, eval_fraction: 0.2}
optimizer: {lr: 0.01}
scheduler: {t_warmup: 0ba}
train: {max_duration: 2ba, global_batch_size: 8, eval_interval: 1dur, progress_bar: false, precision: fp32}
"""
RECORD = {
    "glu": {"variant": "geglu", "intermediate_size": None},
    "vocab_padding": {"multiple": 64, "strict": False},
    "alibi": {},
}


def saved(folder, words=300, operate=True):
    """A BERT after three surgeries, with a tokenizer; the pairs that name it."""
    tokenizer = train_wordpiece(["number is more than and so on up to 0 1 2 3 4 5 6 7 8 9"] * 3, words)
    model = build("bert", vocab_size=len(tokenizer))
    if operate:
        apply_glu(model)
        apply_alibi(model)
        apply_vocab_padding(model, 64)
    save(model, folder, tokenizer)
    return [f"model.pretrained={folder}", f"tokenizer.name={folder}"]


def test_techniques_of_the_folder_join_those_of_the_recipe(recipe, tmp_path):
    pairs = saved(tmp_path / "model")
    plain = recipe(*pairs, "algorithms={low_precision_norm: {}}")
    found = with_recorded(plain)
    assert found.algorithms == {**RECORD, "low_precision_norm": {}}
    assert found.sources is plain.sources
    reports, counts = run.dry_run(plain)
    assert {report.surgery.partition("(")[0] for report in reports} >= {"GLU", "ALiBi", "VocabPadding"}
    assert counts["stock"] == counts["after_surgery"], "they are in the model already"


def test_the_same_options_may_be_listed_and_others_not(recipe, tmp_path):
    pairs = saved(tmp_path / "model")
    listed = "algorithms={alibi: {}, glu: {}, vocab_padding: {multiple: 64}}"
    assert with_recorded(recipe(*pairs, listed)).algorithms.keys() == RECORD.keys()
    with pytest.raises(
        RecipeError, match=r"^command line: algorithms.glu is .*swiglu.* was changed by it with"
    ):
        run.dry_run(recipe(*pairs, "algorithms.glu.variant=swiglu"))


def test_techniques_of_a_stock_model_may_get_other_options(recipe, tmp_path):
    model = build("bert", vocab_size=300)
    apply_flash_attention(model, "sdpa")
    tokenizer = train_wordpiece(["number is more than and so on"] * 3, 300)
    save(model, tmp_path / "model", tokenizer)
    pairs = f"model.pretrained={tmp_path / 'model'}", f"tokenizer.name={tmp_path / 'model'}"
    assert with_recorded(recipe(*pairs)).algorithms["flash_attention"] == {"kernel": "sdpa"}
    found = with_recorded(recipe(*pairs, "algorithms.flash_attention={kernel: auto}"))
    assert found.algorithms["flash_attention"] == {"kernel": "auto"}
    reports, _ = run.dry_run(recipe(*pairs, "algorithms.flash_attention={kernel: auto}"))
    assert any("kernel='auto'" in report.surgery and report.changes for report in reports)


def test_stock_models_and_names_without_a_model_record_nothing(recipe, tmp_path):
    pairs = saved(tmp_path / "model", operate=False)
    stock = recipe(*pairs)
    assert with_recorded(stock) is stock
    assert recorded("some/name") == {}
    (tmp_path / "empty").mkdir()
    assert recorded(str(tmp_path / "empty")) == {}
    with pytest.raises(ModelError, match=r"^model.pretrained: there is no folder ./nowhere"):
        recorded("./nowhere")


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"Unknown": {}}, "Unknown, which this version doesn't have"),
        ({"GLU": {"variant": "none"}}, "GLU with {'variant': 'none'}"),
    ],
)
def test_a_record_that_cannot_be_read_names_the_folder(record, said, recipe, tmp_path):
    pairs = saved(tmp_path / "model")
    file = tmp_path / "model/config.json"
    fields = json.loads(file.read_text())
    fields["cadenza"]["surgeries"] = record
    file.write_text(json.dumps(fields))
    message = f"^command line: model.pretrained: {tmp_path}/model: load: the model was changed by {said}"
    with pytest.raises(ModelError, match=message):
        run.dry_run(recipe(*pairs))


def test_a_technique_that_does_not_fit_the_objective_is_named(recipe, tmp_path):
    from cadenza.algorithms import apply_sparse_prediction

    model = build("bert")
    apply_sparse_prediction(model)
    save(model, tmp_path / "model")
    pairs = f"model.pretrained={tmp_path}/model", "tokenizer.name=x", "model.objective=causal_lm"
    with pytest.raises(
        RecipeError, match=r"^command line: model.pretrained: .* has techniques that don't fit"
    ):
        run.dry_run(recipe(*pairs))


def continued(recipe, *pairs):
    """The record of a run and its exported model."""
    path = run.train(recipe(*pairs, "train.save_interval=1ba"))
    folder = export(path.parent / "checkpoints/latest-rank0.pt", path.parent / "exported")
    return json.loads(path.read_text()), folder


@pytest.mark.slow
def test_the_checkpoint_of_such_a_run_is_exported_and_resumed(recipe, tmp_path):
    pairs = saved(tmp_path / "model")
    record, folder = continued(recipe, *pairs)
    assert record["recipe"]["algorithms"] == RECORD
    before, after = load(tmp_path / "model"), load(folder)
    assert before.state_dict().keys() == after.state_dict().keys()
    assert not torch.equal(before.get_input_embeddings().weight, after.get_input_embeddings().weight)
    more = "train.autoresume=true", "train.max_duration=3ba", "train.save_interval=1ba"
    again = json.loads(run.train(recipe(*pairs, *more)).read_text())
    assert again["train"]["batches"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("words", [300, 318])
def test_new_words_are_in_the_checkpoint_and_in_the_export(words, recipe, tmp_path, capsys):
    """Also where the vocabulary grows to a multiple, 320, and needs no padding any more."""
    pairs = saved(tmp_path / "model", words)
    size = len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    file = tmp_path / "words.txt"
    new = ["moreover", "numbers"] if words == 300 else [f"x{n}more" for n in range(320 - size)]
    file.write_text("\n".join(new))
    pairs = [*pairs, f"tokenizer.new_tokens={file}"]
    _, folder = continued(recipe, *pairs)
    assert f"new words: {len(new)}, of " in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == size + len(new)
    assert tokenizer(new[0], add_special_tokens=False)["input_ids"] == [size]
    model = load(folder)
    assert model(torch.tensor([[2, size, 3]])).logits.shape == (1, 3, size + len(new))
    more = "train.autoresume=true", "train.max_duration=3ba", "train.save_interval=1ba"
    assert json.loads(run.train(recipe(*pairs, *more)).read_text())["train"]["batches"] == 3
    file.write_text("moreover\nother")
    with pytest.raises(
        RecipeError, match=r"tokenizer.name: .* with tokenizer.new_tokens isn't the tokenizer of"
    ):
        run.train(recipe(*pairs, *more))


def test_adapters_and_new_words_do_not_go_together(recipe, tmp_path):
    pairs = *saved(tmp_path / "model"), "tokenizer.new_tokens=[moreover]", "model.lora.r=2"
    with pytest.raises(RecipeError, match=r"tokenizer.new_tokens: model.lora trains adapters alone"):
        recipe(*pairs)
