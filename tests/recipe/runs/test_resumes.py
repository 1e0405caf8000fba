"""What a resume or a load says, refuses and leaves: recipes, rows of metrics, records, checkpoints."""

import json

import pytest

from cadenza.recipe import RecipeError, load
from cadenza.recipe.run import train
from cadenza.recipe.runs import kept_recipe, rows

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms: {glu: {variant: reglu}, masking_schedule: }
scheduler: {t_warmup: 1ba}
optimizer: {lr: 1e-3}
train: {max_duration: 4ba, global_batch_size: 8, save_interval: 2ba, eval_interval: 2ba, progress_bar: false}
"""
IMAGES = """
name: images
model: {objective: image_classification, model_type: resnet10, width: 0.125, stem: small}
train: {max_duration: 1ba, global_batch_size: 32, save_interval: 1ba, progress_bar: false}
data: {eval_images: 120}
"""


@pytest.fixture
def files(tmp_path):
    """The lines of a file of the run."""
    return lambda name, file: (tmp_path / "runs" / name / file).read_text()


@pytest.fixture
def first(recipe, tmp_path):
    """The checkpoint that a run of 4 batches leaves at its end."""
    train(recipe())
    return tmp_path / "runs/tiny/checkpoints/ep0-ba4-rank0.pt"


def test_a_run_leaves_what_can_be_looked_at(first, recipe, files, tmp_path):
    kept = load([str(tmp_path / "runs/tiny/recipe.yaml")], [])
    assert kept == recipe()
    record = json.loads(files("tiny", "run.json"))
    found = rows.read(tmp_path / "runs/tiny/metrics.jsonl")
    assert [row["batch"] for row in found] == [1, 2, 2, 3, 4, 4]
    assert record["curve"] == rows.curve(found)
    assert record["curve"][-1]["loss"] == pytest.approx(record["eval"]["loss"])
    assert found[-1]["tokens"] == record["train"]["real_tokens"]
    assert found[-2]["loss"] == pytest.approx(record["train"]["loss"])
    assert record["compute"] == {"flops": found[-1]["flops"], "mfu": None}
    rates = [row["learning_rate"] for row in found if "loss" in row]
    assert rates[:3] == [0.0, 0.0, 1e-3], "Composer's schedules lag a batch behind"
    assert (tmp_path / "runs/tiny/metrics.png").is_file()


def test_rows_of_a_broken_run_are_those_of_a_whole_one(recipe, tmp_path):
    """But for seconds and rates; the rows behind the checkpoint that is resumed from are replaced."""
    train(recipe("name=whole"))
    train(recipe("name=broken"))
    folder = tmp_path / "runs/broken/checkpoints"
    (folder / "ep0-ba4-rank0.pt").unlink()
    train(recipe("name=broken", "train.autoresume=true"))
    whole, broken = (rows.read(tmp_path / "runs" / name / rows.FILE) for name in ("whole", "broken"))
    assert len(whole) == 6
    for ours, theirs in zip(whole, broken, strict=True):
        for timed in ("seconds", "tokens_per_second"):
            ours.pop(timed, None)
            theirs.pop(timed, None)
        assert ours == theirs


def test_what_is_loaded_and_what_is_other_is_said(first, recipe, capsys):
    capsys.readouterr()
    more = "train.max_duration=5ba", "data.max_seq_len=16", "optimizer.lr=0.01", "algorithms.unpadding={}"
    train(recipe("name=other", f"train.load_path={first}", *more))
    said = capsys.readouterr().out.splitlines()
    loading = f"loading all of {first}: BertForMaskedLM after batch 4, with glu, masking_schedule"
    assert sorted(said[said.index(loading) + 1 :][:4]) == [
        "  another recipe there: algorithms.unpadding: absent, here on",
        "  another recipe there: data.max_seq_len: 24, here 16",
        "  another recipe there: optimizer.lr: 0.001, here 0.01; the checkpoint's is used",
        "  another recipe there: train.max_duration: 4ba, here 5ba",
    ]
    assert f"resumed after batch 4: {first}" in said


def test_the_learning_rate_of_a_resume_is_the_checkpoints(first, recipe, tmp_path):
    train(recipe("name=other", f"train.load_path={first}", "optimizer.lr=1.0", "train.max_duration=6ba"))
    found = rows.read(tmp_path / "runs/other/metrics.jsonl")
    assert all(row["learning_rate"] <= 1e-3 for row in found if "loss" in row)


def test_a_technique_that_is_switched_off_is_refused(first, recipe):
    for weights_only in ("false", "true"):
        with pytest.raises(RecipeError) as error:
            train(
                recipe(
                    "name=other",
                    "algorithms.glu=false",
                    f"train.load_path={first}",
                    f"train.load_weights_only={weights_only}",
                )
            )
        assert str(error.value) == (
            f"command line: algorithms.glu is switched off, and {first} was trained with it; switch it on, "
            "by "
            'algorithms.glu={"variant": "reglu", "intermediate_size": null}, or start anew from an exported '
            f"model: cadenza export {first} FOLDER, then model.pretrained=FOLDER"
        )


def test_what_shapes_training_alone_may_be_left_out_of_a_load_of_weights(first, recipe, capsys):
    pairs = ["name=other", f"train.load_path={first}", "algorithms.masking_schedule=false"]
    with pytest.raises(RecipeError, match=r"algorithms\.masking_schedule is switched off"):
        train(recipe(*pairs))
    capsys.readouterr()
    train(recipe(*pairs, "train.load_weights_only=true"))
    assert f"loading the weights alone of {first}: BertForMaskedLM after batch 4" in capsys.readouterr().out


def test_other_models_are_refused(first, recipe, tmp_path):
    (tmp_path / "images.yaml").write_text(IMAGES)

    def images(*pairs):
        return load([str(tmp_path / "images.yaml")], [f"train.run_folder={tmp_path}/runs", *pairs])

    with pytest.raises(RecipeError, match="holds a language model; this recipe is for an image classifier"):
        train(images(f"train.load_path={first}"))
    train(images())
    other = tmp_path / "runs/images/checkpoints/ep0-ba1-rank0.pt"
    with pytest.raises(RecipeError, match="holds an image classifier; this recipe is for a language model"):
        train(recipe(f"train.load_path={other}"))
    with pytest.raises(RecipeError, match=r"holds a bert; model\.model_type is 'roberta'"):
        train(recipe(f"train.load_path={first}", "model.model_type=roberta"))


def test_nothing_left_to_train_leaves_the_record_alone(first, recipe, files, capsys):
    before = {name: files("tiny", name) for name in ("run.json", "recipe.yaml", "metrics.jsonl")}
    again = train(recipe("train.autoresume=true"))
    assert again is not None
    capsys.readouterr()
    assert train(recipe("train.autoresume=true", "train.max_duration=3ba")) is None
    assert "no record: nothing was trained by this recipe" in capsys.readouterr().out
    assert train(recipe("name=other", f"train.load_path={first}")) is None
    assert {name: files("tiny", name) for name in before} == before


def test_a_record_that_a_killed_run_did_not_write_is_written(first, recipe, files, tmp_path):
    before = json.loads(files("tiny", "run.json"))
    (tmp_path / "runs/tiny/run.json").unlink()
    train(recipe("train.autoresume=true"))
    after = json.loads(files("tiny", "run.json"))
    assert after["train"]["loss"] == pytest.approx(before["train"]["loss"])
    assert after["curve"] == before["curve"]


def test_the_newest_checkpoints_stay(recipe, tmp_path):
    """Those of before a resume count, too."""
    pairs = "train.keep_checkpoints=2", "train.save_interval=1ba", "train.autoresume=true"
    folder = tmp_path / "runs/tiny/checkpoints"
    train(recipe(*pairs))
    assert sorted(path.name for path in folder.glob("ep*")) == ["ep0-ba3-rank0.pt", "ep0-ba4-rank0.pt"]
    train(recipe(*pairs, "train.max_duration=6ba"))
    assert sorted(path.name for path in folder.glob("ep*")) == ["ep0-ba5-rank0.pt", "ep0-ba6-rank0.pt"]


def test_differences_and_what_makes_none(recipe):
    kept = kept_recipe.read(kept_recipe.write(_in_folder(recipe())))
    assert kept_recipe.differences(kept, recipe()) == []
    assert kept_recipe.differences(kept, recipe("train.autoresume=true", "loggers.console={}")) == []
    other = recipe("model.config.hidden_size=64", "algorithms.glu.variant=geglu", "algorithms.alibi={}")
    assert sorted(kept_recipe.differences(kept, other)) == [
        "algorithms.alibi: absent, here on",
        "algorithms.glu.variant: reglu, here geglu",
        "model.config.hidden_size: 32, here 64",
    ]


def _in_folder(recipe):
    recipe.folder.mkdir(parents=True)
    return recipe


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["train.load_weights_only=true"], "train.load_weights_only is true; it needs train.load_path"),
        (["train={load_weights_only: true, autoresume: true}"], "it needs train.load_path"),
        (["train.keep_checkpoints=0"], "train.keep_checkpoints is 0; it must be at least 1"),
        (["train.keep_checkpoints=-1"], "train.keep_checkpoints is -1; it must be at least 1"),
    ],
)
def test_keys_that_make_no_sense(pairs, message, recipe):
    with pytest.raises(RecipeError) as error:
        recipe(*pairs)
    assert str(error.value).startswith("command line: train.")
    assert message in str(error.value)
