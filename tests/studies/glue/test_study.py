"""The study with a stand-in for training: cells once, starts, sweeps, resuming, what is written."""

import json

import pytest
from drawn import drawn  # noqa: F401
from filelock import FileLock
from paths import ROOT

from cadenza.recipe import RecipeError
from cadenza.studies.glue import study
from cadenza.studies.glue.__main__ import main
from cadenza.studies.running import cells

SCORES = {"films": 0.8001, "pairs": 0.5}


class Trained:
    """Stands in for training; keeps what was asked for. `fails` names runs that end in an error."""

    def __init__(self):
        self.asked, self.fails = [], set()

    def __call__(self, recipe):
        task = recipe.name.split("/")[1]
        self.asked.append(task)
        if task in self.fails:
            raise RecipeError("it failed")
        start = 0.1 * ("after" in task) + 0.05 * ("two" in recipe.name)
        best = -abs(recipe.optimizer.lr - 0.01)
        score = SCORES[task.split("-")[0]] + start + best + recipe.seed / 1000
        (recipe.folder / "model").mkdir(parents=True, exist_ok=True)
        (recipe.folder / "model/config.json").write_text(json.dumps(recipe.model.pretrained))
        record = {
            "train": {"seconds": 36.0},
            "eval": {"loss": 1.0, "accuracy": score, "f1": score + 0.02, "mcc": None},
            "others": {"far": {"accuracy": 0.25}},
        }
        (recipe.folder / "run.json").write_text(json.dumps(record))
        return recipe.folder / "run.json"


@pytest.fixture
def trained(monkeypatch):
    """The stand-in; jobs run in this process, in their order."""

    def run_jobs(jobs, slots):
        done = set()
        for job in jobs:
            assert job.after <= done
            yield job, job.call(*job.arguments)
            done.add(job.name)

    found = Trained()
    monkeypatch.setattr(study, "run_jobs", run_jobs)
    monkeypatch.setattr(study.recipe_run, "train", found)
    monkeypatch.setattr(study.recipe_run, "dry_run", lambda recipe: None)
    return found


@pytest.fixture
def arguments(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
    (tmp_path / "films.csv").write_text("text,label\n" + "good,1\nbad,0\nfine,1\npoor,0\n" * 10)
    (tmp_path / "study.yaml").write_text(f"""
models: [{tmp_path}/one, {tmp_path}/two]
recipe: [{ROOT}/yamls/finetune.yaml]
overrides: [optimizer.lr=0.01]
data: {{source: {tmp_path}/films.csv}}
tasks:
  films: {{seeds: [1, 2], metrics: [accuracy, f1]}}
  pairs: {{seeds: [1, 2, 3], after: films}}
out: {tmp_path}/out
""")
    return [str(tmp_path / "study.yaml")]


def rows(tmp_path):
    return cells.done(tmp_path / "out/glue.csv")


def test_a_table_of_two_models(arguments, trained, tmp_path, capsys, drawn):  # noqa: F811
    assert main(arguments) == 0
    said = capsys.readouterr().out
    page = (tmp_path / "out/glue.md").read_text()
    assert page in said
    for line in (
        "| task | metrics | start | one | two |",
        "| films | accuracy, f1 | pretrained | 81.16 ± 0.07 (2) | 86.16 ± 0.07 (2) |",
        "| pairs | accuracy | pretrained | 50.20 ± 0.10 (3) | 55.20 ± 0.10 (3) |",
        "| pairs | accuracy | films | 60.20 ± 0.10 (3) | 65.20 ± 0.10 (3) |",
        "| **average** |  | pairs after films; the others pretrained | 70.68 | 75.68 |",
        "| **average** |  | all pretrained | 65.68 | 70.68 |",
        "average: the mean of the means of 2 tasks: films, pairs.",
        "| films | pretrained | +5.00 (+5.00 to +5.00) |",
        "| **average** | all pretrained | +5.00: can't tell |",
        "| hours | runs | training | all of the runs | wall clock |",
    ):
        assert line in page.splitlines()
    assert "Learning rates" not in page
    assert [
        line for line in page.splitlines() if line.startswith(("| one | 8 | 0.080 |", "| all models | 16 |"))
    ]
    content = json.loads((tmp_path / "out/glue.json").read_text())
    assert content["scores"][0]["seeds"] == pytest.approx({"1": 0.8111, "2": 0.8121})
    assert [each["mean"] for each in content["averages"]] == pytest.approx(
        [0.7068, 0.6568, 0.7568, 0.7068], abs=1e-4
    )
    assert content["differences"][-1]["low"] is None
    labels = [text.get_text() for text in drawn["glue.png"].axes[0].get_xticklabels()]
    assert labels == ["films", "pairs", "pairs\nafter films"]
    assert len(rows(tmp_path)) == 16
    assert json.loads(rows(tmp_path)[0]["metrics"])["far.accuracy"] == 0.25


def test_a_task_after_another_starts_from_the_model_of_its_first_seed(arguments, trained, tmp_path):
    assert main([*arguments, f"models=[{tmp_path}/one]"]) == 0
    starts = {row["pretrained"] for row in rows(tmp_path) if row["start"] == "films"}
    (source,) = (row["run"] for row in rows(tmp_path) if row["task"] == "films" and row["seed"] == "1")
    assert starts == {f"{source}/model"}


def test_models_that_no_task_starts_from_are_removed(arguments, trained, tmp_path):
    assert main(arguments) == 0
    left = {path.parent.name for path in tmp_path.glob("out/runs/*/*/*/model")}
    assert left == {"films-0.01-1"}
    assert main([*arguments, "keep_models=true", "tasks.films.seeds=[4,5]"]) == 0
    assert "films-0.01-5" in {path.parent.name for path in tmp_path.glob("out/runs/*/*/*/model")}


def test_a_model_that_is_gone_is_trained_again_if_a_task_needs_it(arguments, trained, tmp_path):
    """Of the first seed alone, and its row counts once."""
    one = [*arguments, f"models=[{tmp_path}/one]"]
    assert main([*one, "tasks.pairs.after=null"]) == 0
    del trained.asked[:]
    assert main(one) == 0
    assert trained.asked == ["films-0.01-1", *(f"pairs-after-films-0.01-{seed}" for seed in (1, 2, 3))]
    content = json.loads((tmp_path / "out/glue.json").read_text())
    assert [len(each["seeds"]) for each in content["scores"]] == [2, 3, 3]


def test_a_finished_study_trains_nothing_and_more_seeds_are_added(arguments, trained, tmp_path):
    assert main(arguments) == 0
    page = (tmp_path / "out/glue.md").read_text()
    del trained.asked[:]
    assert main(arguments) == 0
    assert trained.asked == []
    assert (tmp_path / "out/glue.md").read_text() == page
    assert main([*arguments, "tasks.films.seeds=[1,2,3]"]) == 0
    assert trained.asked == ["films-0.01-3"] * 2


def test_other_metrics_need_no_training(arguments, trained, tmp_path):
    far = "data.other_eval.far=" + str(tmp_path / "films.csv")
    assert main([*arguments, far]) == 0
    del trained.asked[:]
    assert main([*arguments, far, "tasks.films.metrics=[far.accuracy]"]) == 0
    assert trained.asked == []
    page = (tmp_path / "out/glue.md").read_text()
    assert "| films | far.accuracy | pretrained | 25.00 ± 0.00 (2) |" in page


def test_what_was_done_before_a_failure_is_kept(arguments, trained, tmp_path, capsys):
    trained.fails = {"pairs-0.01-2"}
    assert main(arguments) == 2
    assert "it failed" in capsys.readouterr().err
    before = rows(tmp_path)
    assert [row["task"] for row in before] == ["films"] * 4 + ["pairs"]
    assert not (tmp_path / "out/glue.md").exists()
    trained.fails = set()
    del trained.asked[:]
    assert main(arguments) == 0
    assert rows(tmp_path)[:5] == before
    assert len(trained.asked) == 11


def test_the_rate_with_the_highest_mean_counts(arguments, trained, tmp_path):
    """Also for the model that another task starts from."""
    rates = ["learning_rates=[0.03,0.011]", "tasks.pairs.seeds=[1]"]
    assert main([*arguments, f"models=[{tmp_path}/one]", *rates]) == 0
    page = (tmp_path / "out/glue.md").read_text()
    assert "81.06 ± 0.07 (2), 0.011 is the best of 2" in page
    assert "Learning rates: of those tried, the one with the highest mean over seeds counts" in page
    starts = {row["pretrained"].split("/")[-2] for row in rows(tmp_path) if row["start"] == "films"}
    assert starts == {"films-0.011-1"}


def test_a_score_that_is_not_finite_leaves_no_average(arguments, trained, tmp_path):
    assert main([*arguments, "tasks.pairs.metrics=[mcc]"]) == 0
    page = (tmp_path / "out/glue.md").read_text()
    assert "| pairs | mcc | pretrained | none (3) | none (3) |" in page
    assert "| **average** |  | all pretrained | none | none |" in page
    assert "No average of one: pairs has no score." in page
    assert json.loads((tmp_path / "out/glue.json").read_text())["averages"][0]["mean"] is None


def test_a_task_may_be_left_out(arguments, trained, tmp_path):
    assert main([*arguments, "tasks.pairs=null"]) == 0
    page = (tmp_path / "out/glue.md").read_text()
    assert "| **average** |  | all pretrained | 81.16 | 86.16 |" in page
    assert "after" not in page


def test_data_and_models_are_tried_before_anything_is_trained(
    arguments, trained, monkeypatch, capsys, tmp_path
):
    assert main([*arguments, "tasks.pairs.data.label_field=lable"]) == 2
    assert "error: tasks.pairs: " in capsys.readouterr().err

    def dry_run(recipe):
        if recipe.model.pretrained.endswith("two"):
            raise RecipeError("it can't be built")

    monkeypatch.setattr(study.recipe_run, "dry_run", dry_run)
    assert main(arguments) == 2
    assert "it can't be built" in capsys.readouterr().err
    assert trained.asked == rows(tmp_path) == []


def test_two_studies_do_not_write_to_one_folder(arguments, trained, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        assert main(arguments) == 2
    assert "out: another study runs in" in capsys.readouterr().err
    assert trained.asked == []


def test_a_folder_that_cannot_be_written_to_is_said(arguments, trained, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert main(arguments) == 2
    assert "error: out: " in capsys.readouterr().err


def test_help(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "python -m cadenza.studies.glue yamls/glue.yaml models=[MODEL,...]" in said
    assert "keep_models: " in said
