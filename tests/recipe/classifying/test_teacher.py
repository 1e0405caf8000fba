"""The teacher of `distillation` in recipes: what it may be, and what is refused before training."""

import json

import pytest

from cadenza.data import train_wordpiece
from cadenza.models import export
from cadenza.recipe import RecipeError, load, run

IMAGES = """
name: full
model: {objective: image_classification, model_type: resnet10, width: 0.0625, stem: small_stride2}
data: {augmentation: none}
optimizer: {name: sgd, lr: 0.05}
scheduler: {t_warmup: 0ba}
train: {max_duration: 2ba, global_batch_size: 16, eval_interval: 1dur, save_interval: 1dur}
"""
TEACHER = "algorithms.distillation.teacher"
SHORT = "train.max_duration=3ba"


@pytest.fixture
def images(tmp_path):
    """A recipe of images, with everything it writes under tmp_path."""
    (tmp_path / "images.yaml").write_text(IMAGES)
    return lambda *pairs: load(
        [str(tmp_path / "images.yaml")], [f"train.run_folder={tmp_path / 'runs'}", *pairs]
    )


def refused(recipe, *parts):
    with pytest.raises(RecipeError) as error:
        run.train(recipe)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert not (recipe.folder / "recipe.yaml").exists(), "nothing was trained"


@pytest.mark.slow
def test_images_learn_from_a_run_a_checkpoint_and_a_folder(images, tmp_path, capsys):
    run.train(images())
    full = tmp_path / "runs" / "full"
    checkpoint = full / "checkpoints" / "latest-rank0.pt"
    folder = export(checkpoint.resolve(), tmp_path / "exported")
    plain = json.loads(run.train(images("name=plain", "seed=3")).read_text())["train"]["loss"]
    losses = []
    for name, given in (("a", full), ("b", checkpoint), ("c", folder)):
        recipe = images(f"name={name}", "seed=3", f"{TEACHER}={given}")
        record = json.loads(run.train(recipe).read_text())
        assert record["recipe"]["algorithms"]["distillation"]["teacher"] == str(given)
        losses.append(record["train"]["loss"])
    assert losses[0] == losses[1] == losses[2] != plain
    assert f"distillation: the teacher is {full}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_goes_on_and_a_finished_one_needs_no_teacher(images, tmp_path):
    run.train(images())
    full = tmp_path / "runs" / "full"
    pairs = ("name=student", "train.autoresume=true", f"{TEACHER}={full}")
    run.train(images(*pairs))
    longer = images(*pairs, "train.max_duration=4ba")
    assert json.loads(run.train(longer).read_text())["train"]["batches"] == 4
    full.rename(tmp_path / "elsewhere")
    run.train(longer)
    refused_later = images(*pairs, "train.max_duration=5ba")
    with pytest.raises(RecipeError, match=f"{TEACHER}: .*full is no run with a checkpoint"):
        run.train(refused_later)
    moved = f"{TEACHER}={tmp_path / 'elsewhere'}"
    record = json.loads(run.train(images(*pairs[:2], moved, "train.max_duration=5ba")).read_text())
    assert record["train"]["batches"] == 5


@pytest.mark.slow
def test_what_is_no_teacher_of_images(images, tmp_path):
    run.train(images())
    small = export((tmp_path / "runs/full/checkpoints/latest-rank0.pt").resolve(), tmp_path / "exported")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    refused(images("name=other", f"{TEACHER}={small}"), f"{TEACHER}: ", "is not of a ResNet")
    refused(images("name=other", f"{TEACHER}=runs/none"), f"{TEACHER}: runs/none is no run")
    with pytest.raises(RecipeError, match=f"{TEACHER}: runs/none is no run"):
        run.dry_run(images(f"{TEACHER}=runs/none"))


@pytest.mark.slow
def test_text_learns_from_a_run(tuning, tmp_path):
    run.train(tuning("name=full", SHORT))
    full = tmp_path / "runs" / "full"
    plain = json.loads(run.train(tuning("name=plain", "seed=3", SHORT)).read_text())["train"]["loss"]
    losses = []
    for name, given in (("a", full), ("b", full / "model")):
        recipe = tuning(f"name={name}", "seed=3", SHORT, f"{TEACHER}={given}")
        losses.append(json.loads(run.train(recipe).read_text())["train"]["loss"])
    assert losses[0] == losses[1] != plain


@pytest.mark.slow
def test_what_is_no_teacher_of_text(tuning, encoder, tmp_path):
    run.train(tuning("name=full", SHORT))
    model = tmp_path / "runs" / "full" / "model"
    refused(tuning("name=a", f"{TEACHER}={encoder}"), f"{TEACHER}: ", "is no classifier; fine-tune it first")
    other = tuning("name=b", "data.label_field=size", f"{TEACHER}={model}")
    refused(other, f"{TEACHER}: ", "['blue', 'green', 'red'], the model ['large', 'small']")
    train_wordpiece(["some other words"], 60).save_pretrained(model)
    refused(tuning("name=c", f"{TEACHER}={model}"), "has another tokenizer", "ids would mean other words")


PAIRS = {
    "model.objective=masked_lm": "algorithms.distillation is for classifiers: image_classification and "
    "text_classification; model.objective is masked_lm",
    "model.objective=causal_lm": "model.objective is causal_lm",
}


@pytest.mark.parametrize("objective", PAIRS)
def test_language_models_are_refused(objective):
    with pytest.raises(RecipeError, match=PAIRS[objective]):
        load([], [objective, f"{TEACHER}=runs/full"])
    load([], [objective, "algorithms.distillation=false"])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["data.target=number"], "algorithms.distillation is for classes; data.target is number"),
        (["algorithms.sequence_packing={}"], "sequence_packing makes rows of several texts"),
    ],
)
def test_text_without_classes_of_its_own_rows_is_refused(tuning, pairs, message):
    with pytest.raises(RecipeError, match=message):
        tuning(f"{TEACHER}=runs/full", *pairs)


def test_the_teacher_is_required():
    with pytest.raises(RecipeError, match=r"algorithms\.distillation\.teacher is missing"):
        load([], ["model.objective=image_classification", "algorithms.distillation={}"])
