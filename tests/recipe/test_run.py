"""How a recipe is played: in which order, on which rank, to which end, and what it leaves."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from composer.core import Time, Timestamp
from composer.utils import dist
from families import build
from safetensors.torch import load_file
from torch import nn

from cadenza.algorithms import (
    apply_quantization_aware_training,
    convert,
    set_activation_bounds,
)
from cadenza.recipe import RecipeError, TrainingError, load, record, run, task
from cadenza.recipe.image_classification import ImageClassification
from cadenza.recipe.language_modelling import LanguageModelling
from cadenza.recipe.schema import ImageRecipe, Recipe
from cadenza.recipe.task import Task, keep_integers
from cadenza.surgery import SurgeryError

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 16, eval_fraction: 0.2}
train: {global_batch_size: 8}
"""


FACTS = {"loss": 3.0, "seconds": 1.0}


class FakeTrainer:
    """A Trainer that notes what it's asked for, and whose model has grown by a surgery."""

    def __init__(self, done, now=0, end="5ba"):
        self.done = done
        self.state = SimpleNamespace(
            model=nn.Linear(2, 5),
            algorithms=[],
            callbacks=[],
            timestamp=Timestamp(batch=now),
            max_duration=end and Time.from_timestring(end),
            device=SimpleNamespace(name="cpu"),
            precision=SimpleNamespace(value="fp32"),
        )

    def fit(self):
        self.done.append("fit")

    def eval(self):
        self.done.append("eval")

    def close(self):
        self.done.append("close")


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Plays a recipe of which only the playing is real; gives what was returned, and what was done."""

    def stage(rank=0, trainer=FakeTrainer, **options):
        done = []

        class Acts(Task):
            weighs_tokens = False

            def model(self):
                return done.append("model") or nn.Linear(2, 3)

            def data(self, algorithms):
                return done.append("data") or ("train", "eval")

            def check(self, model):
                done.append("check")

            def results(self, trainer, evaluation):
                return done.append(f"results of {evaluation}") or {"train": dict(FACTS)}

            @staticmethod
            def summary(results):
                return f"summary of {results}"

            def keep(self, model, folder):
                done.append(f"keep in {folder}")

        monkeypatch.setattr(dist, "get_global_rank", lambda: rank)
        monkeypatch.setattr(run, "task_of", Acts)
        monkeypatch.setattr(
            run, "build_trainer", lambda *args: done.append("trainer") or trainer(done, **options)
        )
        return run.train(load([], [f"train.run_folder={tmp_path}", "name=a/b"])), done

    return stage


def test_the_order_of_a_run(stage, tmp_path, capsys):
    path, done = stage()
    kept = f"keep in {tmp_path}/a/b"
    assert done == ["model", "data", "trainer", "check", "fit", "results of eval", "close", kept]
    assert path == tmp_path / "a/b/run.json"
    found = json.loads(path.read_text())
    assert found["parameters"] == {"stock": 9, "after_surgery": 15}
    assert found["train"] == FACTS
    said = ["parameters: 15", "summary of " + str({"train": FACTS})]
    assert capsys.readouterr().out.splitlines()[-2:] == said


@pytest.mark.parametrize("rank", [1, 7])
def test_other_ranks_take_part_and_write_and_say_nothing(rank, stage, tmp_path, capsys):
    path, done = stage(rank)
    assert path is None
    assert done == ["model", "data", "trainer", "check", "fit", "results of eval", "close"]
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("now", "end", "act"),
    [(0, "5ba", "fit"), (4, "5ba", "fit"), (5, "5ba", "eval"), (6, "5ba", "eval"), (9, None, "fit")],
)
def test_a_run_at_its_end_is_evaluated_alone(now, end, act, stage, capsys):
    _, done = stage(now=now, end=end)
    assert ("fit" in done, "eval" in done) == (act == "fit", act == "eval")
    line = f"nothing left to train: batch {now} is the end (5ba)"
    assert (line in capsys.readouterr().out.splitlines()) is (act == "eval")


def test_a_checkpoint_that_cannot_be_saved_is_named(stage, tmp_path):
    class Full(FakeTrainer):
        def fit(self):
            (tmp_path / "a/b/checkpoints").mkdir(parents=True)
            (tmp_path / "a/b/checkpoints/ep0-ba1-rank0.pt").write_bytes(b"PK")
            raise OSError("disk full")

    with pytest.raises(TrainingError, match=r"ep0-ba1-rank0\.pt couldn't be saved \(disk full\)"):
        stage(trainer=Full)


def test_a_task_for_each_kind_of_recipe():
    tasks = {Recipe: LanguageModelling, ImageRecipe: ImageClassification}
    for recipe, kind in tasks.items():
        assert type(run.task_of(recipe())) is kind
    assert run.task_of(ImageRecipe()).check(None) is None


def test_a_language_model_with_rounded_rotary_positions_is_not_trained():
    model = build("llama")
    model.to(torch.bfloat16)
    with pytest.raises(SurgeryError, match="inv_freq"):
        LanguageModelling(Recipe()).check(model)


def test_a_dry_run_reads_the_data_and_operates(recipe, monkeypatch):
    seen, real = [], LanguageModelling.data
    monkeypatch.setattr(LanguageModelling, "data", lambda *args: seen.append(args) or real(*args))
    tiny = recipe("algorithms={masking_schedule: {}, vocab_padding: {multiple: 100}, alibi: {}}")
    reports, counts = run.dry_run(tiny)
    assert [report.surgery for report in reports] == ["VocabPadding(multiple=100)", "ALiBi()"]
    ((asked, algorithms),) = seen
    assert asked.recipe is tiny
    assert [type(each).__name__ for each in algorithms] == ["VocabPadding", "ALiBi", "MaskingSchedule"]
    assert counts["after_surgery"] - counts["stock"] == (-len(asked.tokenizer) % 100) * 33 - 512 * 32


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["train.load_path={path}"], "nothing.pt"),
        (["train.load_path=s3://bucket/a.pt"], "trust_load_path"),
    ],
)
def test_a_dry_run_refuses_a_checkpoint_that_can_not_be_loaded(pairs, message, recipe, tmp_path):
    pairs = [pair.format(path=tmp_path / "nothing.pt") for pair in pairs]
    with pytest.raises((RecipeError, SurgeryError), match=message):
        run.dry_run(recipe(*pairs))


def test_the_record_is_written_whole_and_the_last_one_kept(tmp_path):
    folder = tmp_path / "a/b"
    path = record.write(folder, {"x": [1]})
    assert path.read_text() == '{\n  "x": [\n    1\n  ]\n}\n'
    os.utime(path, (86400 + 3723, 86400 + 3723))
    assert record.write(folder, {"x": 2}) == path
    assert json.loads(path.read_text()) == {"x": 2}
    assert json.loads((folder / "run-19700102-010203.json").read_text()) == {"x": [1]}
    assert sorted(p.name for p in folder.iterdir()) == ["run-19700102-010203.json", "run.json"]


def quantized(calibrated=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    apply_quantization_aware_training(model, edge_bits=4)
    model.train()(torch.randn(5, 8))
    if calibrated:
        set_activation_bounds(model)
    return model


def test_integers_are_left_beside_the_record(tmp_path, capsys):
    model = quantized()
    before = sum(value.nbytes for value in model.state_dict().values())
    for _ in range(2):  # again, into a folder that is there
        keep_integers(model, tmp_path / "a/b")
    path = tmp_path / "a/b/integers.safetensors"
    found, expected = load_file(path), convert(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    after = sum(value.nbytes for value in expected.values())
    line = f"integers: {path}, {after:,} bytes; the model's state takes {before:,}\n"
    assert capsys.readouterr().out == 2 * line


@pytest.mark.parametrize(
    ("pairs", "model"),
    [
        ([], lambda: nn.Sequential(nn.Linear(2, 2))),
        ([], lambda: quantized(calibrated=False)),
        (["train.parallelism_config={fsdp2: {}}"], quantized),
    ],
    ids=["stock", "calibrating", "in shards"],
)
def test_there_are_no_integers_of(pairs, model, tmp_path, capsys):
    ImageClassification(load([], pairs)).keep(model(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


class Saves:
    """Something that can be saved to a folder."""

    def __init__(self, saved):
        self.saved = saved

    def save_pretrained(self, folder):
        self.saved.append(str(folder))


@pytest.mark.parametrize("adapters", [False, True])
def test_a_language_models_run_leaves_its_tokenizer_and_its_adapters(adapters, tmp_path, monkeypatch):
    saved, integers = [], []
    monkeypatch.setattr(task, "keep_integers", lambda *args: integers.append(args))
    model = SimpleNamespace(model=Saves(saved), using_peft=adapters)
    text = LanguageModelling(Recipe())
    vars(text)["tokenizer"] = Saves(saved)
    text.keep(model, tmp_path)
    ImageClassification(ImageRecipe()).keep(model, tmp_path)
    assert integers == 2 * [(model, tmp_path)]
    assert saved == [f"{tmp_path}/adapter"] * adapters + [f"{tmp_path}/tokenizer"]
