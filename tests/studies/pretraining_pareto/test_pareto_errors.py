"""What the command refuses: in one line, with exit code 2, and without files."""

import json

import made_runs
import pytest

from cadenza.studies.pretraining_pareto import __main__
from cadenza.studies.pretraining_pareto.__main__ import main


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """The line that these arguments are refused by; `runs/a` is a run."""
    monkeypatch.chdir(tmp_path)
    made_runs.run(tmp_path / "runs/a", {2: 3.0, 4: 2.0})

    def refused(*arguments):
        try:
            code = main([*arguments, "--out", "out"])
        except SystemExit as done:
            code = done.code
        shown = capsys.readouterr()
        assert code == 2, shown.out
        assert not (tmp_path / "out").exists()
        assert shown.err.startswith("error: ")
        assert len(shown.err.splitlines()) == 1
        return shown.err

    return refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run is named; name the folders of runs, such as runs/NAME"),
        (["nowhere"], "nowhere: there is no metrics.jsonl in it"),
        (["runs"], "runs: there is no metrics.jsonl in it; name the runs in it, such as runs/a"),
        (["runs/a", "--target", "2.x"], "--target is '2.x'; it must be a number"),
        (["runs/a", "--target", "nan"], "--target is nan; it must"),
        (["runs/a", "--target", "los=2"], "--target is 'los=2'; it must be like loss=2.1 or score=0.8"),
        (["runs/a", "--target", "score=0.8"], "there is no score here; name scores by --scores"),
        (["runs/a", "--price", "0"], "--price is 0; it must lie in (0, "),
        (["runs/a", "--checkpoints", "0"], "--checkpoints is 0; it must be at least 1"),
        (["runs/a", "--group", "runs/a"], "--group is 'runs/a'; it must be like base=runs/base-17"),
        (["--group", "x=nowhere"], "nowhere: there is no metrics.jsonl in it"),
        (["runs/a", "--group", "x=runs/a,runs/a"], "--group: a is named twice"),
        (["runs/a", "--scores", "x.json"], "--scores: x.json can't be read (No such file or directory)"),
        (["runs/a", "--without-loss"], "there are no scores to compare; name them by --scores"),
    ],
)
def test_arguments_that_do_not_fit(refused, arguments, said):
    assert said in refused(*arguments)


def test_a_run_without_an_evaluation(refused, tmp_path):
    made_runs.run(tmp_path / "runs/b", {}, batches=3)
    assert "runs/b: there is no evaluation in it; set train.eval_interval" in refused("runs/a", "runs/b")


def test_losses_of_other_evaluations_unless_scores_alone_are_compared(refused, tmp_path):
    made_runs.run(tmp_path / "runs/b", {2: 3.0}, data__eval_mlm_probability=0.3)
    said = refused("runs/a", "runs/b")
    assert "data.eval_mlm_probability is 0.15 in runs/a, but 0.3 in runs/b; compare runs of one" in said
    models = [f"runs/{name}/checkpoints/ep0-ba2-rank0.pt" for name in "ab"]
    averages = [{"model": model, "starts": {"rte": "pretrained"}, "mean": 0.5} for model in models]
    content = {"tasks": {"rte": {"after": None}}, "averages": averages}
    (tmp_path / "glue.json").write_text(json.dumps(content))
    arguments = ["runs/a", "runs/b", "--scores", "glue.json"]
    assert "scores alone (--without-loss)" in refused(*arguments)
    assert "there is no loss here" in refused(*arguments, "--without-loss", "--target", "loss=2")
    assert main([*arguments, "--without-loss", "--out", "out"]) == 0
    assert {row["measure"] for row in json.loads((tmp_path / "out/pareto.json").read_text())["points"]} == {
        "score"
    }


def test_a_target_that_may_be_either(refused, tmp_path):
    model = {"model": "runs/a/checkpoints/ep0-ba2-rank0.pt", "starts": {"rte": "pretrained"}, "mean": 0.5}
    (tmp_path / "glue.json").write_text(json.dumps({"tasks": {"rte": {"after": None}}, "averages": [model]}))
    said = refused("runs/a", "--scores", "glue.json", "--target", "0.5")
    assert "0.5 may be a loss or a score; write loss=0.5 or score=0.5" in said


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    made_runs.run(tmp_path / "a", {2: 3.0})
    (tmp_path / "file").write_text("")
    assert main([str(tmp_path / "a"), "--out", str(tmp_path / "file")]) == 2
    assert "error: --out: " in capsys.readouterr().err


def test_what_the_command_says_of_itself(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    said = capsys.readouterr().out
    assert done.value.code == 0
    assert said.startswith("usage: python -m cadenza.studies.pretraining_pareto ")
    assert __main__.__doc__ in said
