"""Scores before and after training, on the run's own text and on others, and what is kept of them."""

import json

import pytest
import torch
import torch.nn.functional as F
from composer.utils import dist

from cadenza.data import DataError
from cadenza.recipe import RecipeError, load, run
from cadenza.recipe.continuing import scores
from cadenza.recipe.run import task_of
from cadenza.recipe.runs import curves, metrics

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, eval_fraction: 0.2}
optimizer: {lr: 0.01}
scheduler: {t_warmup: 0ba}
train: {max_duration: 6ba, global_batch_size: 8, eval_interval: 1dur, progress_bar: false, precision: fp32}
"""
FIRST = "train.eval_first=true"


@pytest.fixture
def other(tmp_path):
    """Another text, of words that the first one has, in another order."""
    path = tmp_path / "other.jsonl"
    rows = ({"text": f"{n} on so up and is number more than {n * 3}"} for n in range(20))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def played(recipe, capsys):
    """The record of a run with these pairs, and what it printed."""

    def played(*pairs):
        path = run.train(recipe(*pairs))
        return json.loads(path.read_text()), capsys.readouterr().out.splitlines()

    return played


@torch.no_grad()
def loss_of(recipe, source):
    """The plain reference: the mean loss over all labelled tokens of `source`, by a model with this seed."""
    task = run.task_of(recipe)
    model = task.model().model.eval()
    _, own = task.data()
    spec = own if source is None else task.others[source]
    spec.dataloader.sampler.set_epoch(0)
    logits, labels = [], []
    for batch in map(spec.batch_transforms, spec.dataloader):
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        chosen = batch["labels"] != -100
        logits.append(out[chosen])
        labels.append(batch["labels"][chosen])
    return F.cross_entropy(torch.cat(logits).double(), torch.cat(labels)).item()


def test_the_record_and_the_lines_hold_both_texts(played, recipe, other, tmp_path):
    text = f"data.other_eval.general={other}"
    record, said = played(FIRST, text)
    texts = record["texts"]
    assert texts.keys() == {"own", "general"}
    for name, source in (("own", None), ("general", "general")):
        expected = loss_of(recipe(text), source)
        assert texts[name]["before"]["loss"] == pytest.approx(expected, rel=1e-5)
        assert 0 <= texts[name]["before"]["accuracy"] <= 1
        before, after = (texts[name][time]["loss"] for time in ("before", "after"))
        assert f"{name}: {before:.3f} -> {after:.3f}" in said
        assert before != after
    assert texts["own"]["after"]["loss"] == record["eval"]["loss"] < texts["own"]["before"]["loss"]
    kept = curves.read(tmp_path / "runs/tiny")
    assert kept.evaluation[0]["batch"] == 0
    assert kept.evaluation[0]["loss"] == texts["own"]["before"]["loss"]
    assert [row["batch"] for row in kept.training] == [1, 2, 3, 4, 5, 6]


def test_other_texts_without_a_first_evaluation(played, other):
    record, said = played(f"data.other_eval.general={other}", "data.other_eval.more=[" + f"{other}]")
    assert record["texts"]["own"] == {"before": None, "after": record["texts"]["own"]["after"]}
    loss = record["texts"]["general"]["after"]["loss"]
    assert record["texts"]["more"] == record["texts"]["general"]
    assert f"general: {loss:.3f}" in said
    assert not any(line.startswith("own: ") for line in said)


def test_a_run_without_either_is_as_before(played):
    record, said = played()
    assert "texts" not in record
    assert not any(line.startswith("own: ") for line in said)


def test_the_first_evaluation_changes_no_training(played, other):
    """Also with dropout, whose random numbers the evaluation leaves alone."""
    plain, _ = played("name=plain")
    first, _ = played("name=first", FIRST, f"data.other_eval.general={other}")
    assert first["train"]["loss"] == plain["train"]["loss"]
    assert first["eval"] == plain["eval"]


@pytest.mark.slow
def test_a_resumed_run_has_the_scores_of_its_start(played, other):
    pairs = FIRST, f"data.other_eval.general={other}", "train.save_interval=3ba"
    whole, _ = played("name=whole", *pairs)
    half, _ = played("name=half", *pairs, "train.max_duration=3ba", "scheduler.name=constant_with_warmup")
    again, said = played("name=half", *pairs, "train.autoresume=true")
    assert again["train"]["batches"] == 6
    for name in ("own", "general"):
        assert again["texts"][name]["before"] == whole["texts"][name]["before"]
        assert again["texts"][name]["after"] != half["texts"][name]["after"]
    assert any(line.startswith("own: ") for line in said)
    rows = [row for row in again["curve"] if row["batch"] == 0]
    assert len(rows) == 1, "it isn't evaluated again"


@pytest.mark.slow
def test_a_resumed_run_without_such_scores_says_so(played):
    played("train.max_duration=3ba", "train.save_interval=3ba")
    record, said = played("train.save_interval=3ba", "train.autoresume=true", FIRST)
    assert "no scores from before training: the checkpoint's run had no train.eval_first" in said
    assert "texts" not in record


@pytest.mark.slow
def test_images_have_scores_before_training_too(tmp_path):
    model = "model={objective: image_classification, model_type: resnet10, width: 0.125, stem: small}"
    sizes = "train={max_duration: 2ba, global_batch_size: 32, progress_bar: false, eval_first: true}"
    recipe = load([], [model, sizes, "data.eval_images=64", f"train.run_folder={tmp_path}"])
    record = json.loads(run.train(recipe).read_text())
    assert record["texts"]["own"]["before"]["loss"] > 0
    assert record["texts"]["own"]["after"]["loss"] == record["eval"]["loss"]


def test_other_ranks_keep_no_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "get_global_rank", lambda: 1)
    callback = metrics.Metrics(tmp_path)
    callback._write({"batch": 0})
    callback.early = None  # as training begins
    callback._write({"batch": 1})
    assert callback.early is None


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("data.other_eval={a b: x.txt}", "data.other_eval.a b: a name has letters, digits, _ and -"),
        ("data.other_eval.own=x.txt", "data.other_eval.own: a name has letters, digits, _ and -, and isn't"),
        ("data.other_eval.eval=x.txt", "data.other_eval.eval: a name"),
        ("data.other_eval.general=3", "data.other_eval.general is 3; it must name a file, a folder, a glob"),
        ("data.other_eval.general=[]", r"data.other_eval.general is \[\]; it must name a file"),
        ("data.other_eval.general=[a.txt, 3]", r"data.other_eval.general is \['a.txt', 3\]; it must"),
        ("data.other_eval.general={a: 3}", "data.other_eval.general is {'a': 3}; it must name a file"),
        ("data.other_eval=x.txt", r"data.other_eval is 'x.txt' \(str\); it must be a mapping"),
    ],
)
def test_bad_values_name_the_key(pair, said, recipe):
    with pytest.raises((RecipeError, DataError), match=rf"^command line: {said}"):
        recipe(pair)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere/at/all.txt", "no file matches nowhere/at/all.txt"),
        ("some/set", "some/set is neither python_docs nor a file"),
        ("{}/empty.txt", ".*/empty.txt holds no text"),
        ("{}/blank.jsonl", r".*/blank.jsonl.*"),
    ],
)
def test_texts_that_cannot_be_read_are_named_before_training(name, said, recipe, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.jsonl").write_text('{"texd": "a"}\n')
    with pytest.raises(DataError, match=f"^command line: data.other_eval.general: {said}"):
        run.dry_run(recipe(f"data.other_eval.general={name.format(tmp_path)}"))


def test_text_that_is_trained_on_is_no_other_text(recipe, text, monkeypatch):
    monkeypatch.chdir(text.parent)
    for name in (text, f"./{text.name}", f"[{text.name}]"):
        with pytest.raises(DataError, match=r"other_eval.general: text.jsonl is in data.source, which is"):
            run.dry_run(recipe(f"data.other_eval.general={name}"))


def test_other_texts_beside_a_mixture(recipe, text, other):
    mixture = f"data.mixture=[{{source: {text}, weight: 1}}]"
    pairs = "data.source=python_docs", mixture, f"data.other_eval={{general: {other}}}"
    task = task_of(recipe(*pairs))
    task.data()
    assert set(task.others) == {"general"}
    glob = f"data.other_eval={{general: {str(text).replace('text', '*')}}}"
    with pytest.raises(DataError, match=r"other_eval.general: text.jsonl is in data.source, which is"):
        task_of(recipe("data.source=python_docs", mixture, glob)).data()


def test_null_leaves_a_text_out(recipe, other):
    assert recipe(f"data.other_eval.general={other}", "data.other_eval.general=null").data.other_eval == {}


def test_home_is_meant_by_a_tilde(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = recipe("data.other_eval={a: ~/x.txt, b: [~/y.txt, z.txt]}").data.other_eval
    assert found == {"a": f"{tmp_path}/x.txt", "b": [f"{tmp_path}/y.txt", "z.txt"]}


def test_a_loss_that_is_no_number_is_said():
    texts = {"general": {"before": {"loss": 3.14159}, "after": {"loss": None}}}
    assert scores.lines({"texts": texts}) == ["general: 3.142 -> not finite"]
    assert scores.lines({}) == []
