"""What a run of a classifier starts from: a run, a checkpoint, a folder, another classifier."""

import json
import os
from pathlib import Path

import pytest
import torch

from cadenza.cli.main import main
from cadenza.models import ModelError
from cadenza.models.pretrained import exported, model_folder
from cadenza.models.text_classifier import labels_of
from cadenza.recipe import RecipeError, load, run
from cadenza.recipe.classifying.labels import relabelled
from cadenza.recipe.run import evaluate

SAVED = ("train.save_interval=1dur",)
TRUSTED = "train.trust_load_path=true"  # torch before 2.10 can't read a file of another run safely
PRETRAINING = """
name: pre
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {name: wordpiece, vocab_size: 300}
data: {max_seq_len: 16, eval_fraction: 0.2}
algorithms: {alibi: {}, glu: {}, unpadding: {}, sparse_prediction: {}, vocab_padding: {multiple: 64}}
train:
  {max_duration: 2ba, global_batch_size: 8, eval_interval: 1dur, save_interval: 1dur, progress_bar: false}
"""


@pytest.fixture
def pretrained(colours, tmp_path):
    """The folder of a masked-LM run with techniques, of two batches."""
    file = tmp_path / "pre.yaml"
    file.write_text(PRETRAINING)
    pairs = [f"data.source={colours}", f"train.run_folder={tmp_path / 'runs'}", "train.precision=fp32"]
    run.train(load([str(file)], pairs))
    return tmp_path / "runs/pre"


def record_of(recipe):
    return json.loads(run.train(recipe).read_text())


@pytest.mark.parametrize("start", ["{run}", "{run}/checkpoints/latest-rank0.pt", "{run}/exported"])
@pytest.mark.filterwarnings("ignore")
def test_from_a_run_with_its_techniques(start, pretrained, tuning):
    latest = f"{pretrained}/checkpoints/latest-rank0.pt"
    assert main(["export", latest, f"{pretrained}/exported", "--trust"]) == 0
    name = start.format(run=pretrained)
    recipe = tuning(f"model.pretrained={name}", f"tokenizer.name={name}", "train.max_duration=2ba", TRUSTED)
    record = record_of(recipe)
    assert set(record["recipe"]["algorithms"]) == {"alibi", "glu", "unpadding", "vocab_padding"}
    saved = torch.load(pretrained / "checkpoints/latest-rank0.pt", weights_only=False)["state"]["model"]
    frozen = record_of(
        tuning(
            f"model.pretrained={name}",
            f"tokenizer.name={name}",
            "optimizer.lr=0",
            "optimizer.weight_decay=0",
            "name=frozen",
            TRUSTED,
            *SAVED,
        )
    )
    assert frozen["labels"] == ["blue", "green", "red"]
    checkpoint = recipe.folder.parent / "frozen/checkpoints/latest-rank0.pt"
    found = torch.load(checkpoint, weights_only=False)["state"]["model"]
    shared = {key: value for key, value in saved.items() if key.startswith("model.bert.")}
    assert shared
    assert all(torch.equal(found[key], value) for key, value in shared.items())


def test_an_exported_checkpoint_is_kept_until_it_changes(pretrained):
    first = model_folder(str(pretrained), trusted=True)
    assert model_folder(str(pretrained), trusted=True) == first
    latest = (pretrained / "checkpoints/latest-rank0.pt").resolve()
    latest.write_bytes(latest.read_bytes())
    assert model_folder(str(pretrained), trusted=True) != first


def test_the_folders_used_last_are_kept(pretrained, monkeypatch):
    monkeypatch.setattr(exported, "KEPT", 2)
    latest = (pretrained / "checkpoints/latest-rank0.pt").resolve()
    folders = []
    for time in (1_000, 2_000, 3_000):
        os.utime(latest, (time, time))
        folders.append(Path(model_folder(str(pretrained), trusted=True)))
        os.utime(folders[-1], (time, time))
    assert [folder.is_dir() for folder in folders] == [False, True, True]


def test_a_run_without_a_model_is_refused(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/recipe.yaml").write_text("name: x")
    with pytest.raises(ModelError, match=r"the run .*runs has no checkpoint to start from; .*save_interval"):
        model_folder(str(tmp_path / "runs"))
    with pytest.raises(ModelError, match=r"there is no checkpoint nowhere\.pt"):
        model_folder("nowhere.pt")
    assert model_folder("some/name") == "some/name"


def test_the_run_of_a_classifier_is_scored_by_its_folder_alike(tuning):
    recipe = tuning("name=first")
    record = record_of(recipe)
    (line, found) = evaluate(tuning(f"model.pretrained={recipe.folder}", "name=scored"))
    assert found["accuracy"] == record["eval"]["accuracy"]
    assert found["loss"] == pytest.approx(record["eval"]["loss"], rel=1e-5)
    assert line.startswith("accuracy ")


def test_the_command_line_scores_a_run_without_a_checkpoint(tuning, capsys):
    recipe = tuning("name=first")
    record = record_of(recipe)
    capsys.readouterr()
    assert main(["evaluate", str(recipe.folder)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["accuracy"] == record["eval"]["accuracy"]
    assert found["loss"] == pytest.approx(record["eval"]["loss"], rel=1e-5)


@pytest.mark.parametrize("command", ["data", "prepare"])
def test_text_is_looked_at_with_the_tokenizer_of_a_run(command, pretrained, colours, capsys):
    pairs = [f"model.pretrained={pretrained}", f"data.source={colours}", "data.max_seq_len=16", TRUSTED]
    assert main([command, "continue", "scale/cpu_continue", *pairs, "data.other_eval=null"]) == 0
    assert " documents" in capsys.readouterr().out


def test_a_model_that_is_scored_keeps_the_order_of_its_classes(tuning, colours, tmp_path):
    """The data has two of the three classes, whose ids would be others by name."""
    first = tuning("name=first")
    record_of(first)
    lines = colours.read_text().splitlines()
    kept = [line for line in lines[1:] if ",blue," not in line]
    part = tmp_path / "part.csv"
    part.write_text("\n".join([lines[0], *kept]) + "\n")
    scored = tuning(f"model.pretrained={first.folder}", f"data.source={part}", "name=scored")
    assert evaluate(scored)[1]["accuracy"] > 0.9
    with pytest.raises(RecipeError, match=r"the classes are large, small; .* has blue, green, red"):
        evaluate(tuning(f"model.pretrained={first.folder}", "data.label_field=size"))


def test_a_model_without_a_head_is_not_scored(tuning):
    with pytest.raises(RecipeError, match="is no classifier of these labels; fine-tune it first"):
        evaluate(tuning())


def test_classes_in_another_order_are_refused_and_other_classes_get_a_new_layer(tuning, capsys):
    first = tuning("name=first", "train.max_duration=1ba")
    record_of(first)
    given = f"model.pretrained={first.folder}"
    with pytest.raises(
        RecipeError, match=r"data.labels is \['red', 'green', 'blue'\]; .*leave data.labels out"
    ):
        run.dry_run(tuning(given, "data.labels=[red,green,blue]"))
    capsys.readouterr()
    run.dry_run(tuning(given, "data.label_field=size"))
    assert "the output layer is new: large, small; " in capsys.readouterr().out
    run.dry_run(tuning(given))
    assert "the output layer is new" not in capsys.readouterr().out
    assert labels_of(str(first.folder / "model")) == ["blue", "green", "red"]


def test_relabelled_examples_keep_their_class(tuning):
    sets = run.task_of(tuning()).sets
    other = relabelled(sets, ["red", "blue", "green"])
    for before, after in zip(sets.train + sets.evaluation, other.train + other.evaluation, strict=True):
        assert sets.labels[before.label] == other.labels[after.label]
        assert before.text == after.text


def test_a_killed_run_goes_on_to_the_same_end(tuning):
    whole = record_of(tuning("name=whole", "train.max_duration=12ba"))
    pairs = ("name=cut", "train.max_duration=12ba", "train.save_interval=6ba", "train.autoresume=true")
    cut = tuning(*pairs)
    record_of(cut)
    for path in cut.checkpoints.glob("*ba12*"):
        path.unlink()
    again = record_of(tuning(*pairs))
    assert again["train"]["batches"] == 12
    assert again["eval"] == pytest.approx(whole["eval"])


def test_a_checkpoint_of_a_language_model_is_not_a_classifier(pretrained, tuning):
    checkpoint = pretrained / "checkpoints/latest-rank0.pt"
    with pytest.raises(
        RecipeError, match=r"holds a language model; this recipe is for a text classifier; .*model.pretrained"
    ):
        run.dry_run(tuning(f"train.load_path={checkpoint}", "train.trust_load_path=true"))
