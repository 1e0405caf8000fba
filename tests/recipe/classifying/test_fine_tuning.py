"""A run of a text classifier: it learns, and what it leaves says the same as its record."""

import csv
import json

import pytest
import torch
from transformers import pipeline

from cadenza.recipe import build, run

PAIRS = ("data.pair_field=second", "data.label_field=size")


def trained(recipe):
    """The record, and the rows of the predictions."""
    record = json.loads(run.train(recipe).read_text())
    return record, rows(recipe.folder / "predictions.csv")


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("techniques", ["{}", "{unpadding: {}}", "{unpadding: {}, alibi: {}, glu: {}}"])
def test_classes_are_learned(techniques, tuning):
    record, predicted = trained(tuning(f"algorithms={techniques}"))
    assert record["labels"] == ["blue", "green", "red"]
    assert record["eval"]["examples"] == len(predicted) == 24
    assert record["eval"]["accuracy"] > 0.9
    assert record["train"]["examples"] == 80 * 16
    right = [row["label"] == row["prediction"] for row in predicted]
    assert sum(right) / len(right) == pytest.approx(record["eval"]["accuracy"])
    assert all(row["label"] in row["text"] for row in predicted), "each row has its own text"


def test_probabilities_give_the_loss_of_the_record(tuning):
    record, predicted = trained(tuning("train.max_duration=3ba"))
    losses = [-torch.tensor(float(row[f"probability of {row['label']}"])).log() for row in predicted]
    assert float(torch.stack(losses).mean()) == pytest.approx(record["eval"]["loss"], rel=1e-4)
    for row in predicted:
        shares = {name: float(row[f"probability of {name}"]) for name in record["labels"]}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert max(shares, key=lambda name: shares[name]) == row["prediction"]


def test_pairs_are_learned(tuning):
    record, predicted = trained(tuning(*PAIRS, "algorithms={unpadding: {}}"))
    assert record["labels"] == ["large", "small"]
    assert record["eval"]["accuracy"] > 0.9, "by the second text: the first says nothing of it"
    assert {"text", "pair", "label"} <= predicted[0].keys()


def test_numbers_are_learned(tuning):
    record, predicted = trained(tuning("data.target=number", "data.label_field=number"))
    assert record["labels"] == []
    assert record["eval"]["spearman"] > 0.9
    errors = [(float(row["label"]) - float(row["prediction"])) ** 2 for row in predicted]
    assert sum(errors) / len(errors) == pytest.approx(record["eval"]["loss"], rel=1e-3)
    assert "probability of" not in " ".join(predicted[0])


@pytest.mark.filterwarnings("ignore")
def test_the_folder_loads_in_a_stock_pipeline(tuning):
    recipe = tuning("algorithms={unpadding: {}}")
    _, predicted = trained(recipe)
    classify = pipeline("text-classification", str(recipe.folder / "model"), top_k=None)
    for row in predicted[:6]:
        (found,) = classify([row["text"]])
        assert found[0]["label"] == row["prediction"]
        for each in found:
            assert each["score"] == pytest.approx(float(row[f"probability of {each['label']}"]), abs=1e-4)


def test_other_examples_are_scored_apart(tuning, colours, tmp_path):
    lines = colours.read_text().splitlines()
    for name, kept in (("a", lines[1:31]), ("b", lines[31:41])):
        (tmp_path / f"{name}.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    others = f"data.other_eval={{first: {tmp_path / 'a.csv'}, second: {tmp_path / 'b.csv'}}}"
    recipe = tuning(others, "train.max_duration=5ba")
    record, _ = trained(recipe)
    assert {name: scores["examples"] for name, scores in record["others"].items()} == {
        "first": 30,
        "second": 10,
    }
    for name, scores in record["others"].items():
        found = rows(recipe.folder / f"predictions-{name}.csv")
        right = [row["label"] == row["prediction"] for row in found]
        assert sum(right) / len(right) == pytest.approx(scores["accuracy"])
    assert (recipe.folder / "confusion-second.png").is_file()


def test_the_seed_alone_decides(tuning):
    first, again, other = (
        trained(tuning(f"name={name}", f"seed={seed}", "train.max_duration=4ba"))[1]
        for name, seed in (("one", 3), ("two", 3), ("three", 4))
    )
    assert first == again
    assert [row["text"] for row in first] == [row["text"] for row in other], "the split is that of split_seed"
    assert first != other


@pytest.mark.parametrize("techniques", ["{unpadding: {}}", "{sequence_packing: {}}"])
def test_layout_and_micro_batches_change_nothing(techniques, tuning):
    """The loss of a batch is the mean over its examples, however they are divided and laid out."""
    common = ("train.max_duration=60ba",)
    whole, parts = (
        trained(tuning(*common, f"name=by{size}", f"train.device_train_microbatch_size={size}", how))[1]
        for size, how in ((16, "algorithms={}"), (3, f"algorithms={techniques}"))
    )
    for one, other in zip(whole, parts, strict=True):
        for name in ("blue", "green", "red"):
            shares = [float(row[f"probability of {name}"]) for row in (one, other)]
            assert shares[0] == pytest.approx(shares[1], abs=1e-3)
    reds = [float(row["probability of red"]) for row in whole]
    assert max(reds) - min(reds) > 0.2, "they differ from each other"


def test_packing_puts_the_examples_of_a_micro_batch_into_few_rows(tuning):
    recipe = tuning("algorithms={sequence_packing: {}}")
    task = run.task_of(recipe)
    train, evaluation = task.data(build.algorithms(recipe.algorithms))
    batch = next(iter(train.dataloader))
    packed = train.microbatch_transforms(dict(batch))
    assert "document_ids" in packed
    assert len(packed["input_ids"]) < len(batch["input_ids"]) == len(packed["labels"]) == 16
    assert int(packed["attention_mask"].sum()) == int(batch["attention_mask"].sum())
    assert "document_ids" not in evaluation.microbatch_transforms(dict(batch)), "it isn't packed"
