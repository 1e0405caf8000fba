"""Files of scores, as the GLUE study writes them."""

import json

import pytest

from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.scores import points_of, read_all

TASKS = {"mnli": {"metrics": ["accuracy"], "after": None}, "rte": {"metrics": ["accuracy"], "after": "mnli"}}
AFTER = {"mnli": "pretrained", "rte": "mnli"}
ALL_PRETRAINED = {"mnli": "pretrained", "rte": "pretrained"}


def average(model, mean, starts=None, lacking=()):
    return {"model": model, "starts": starts or AFTER, "mean": mean, "without_score": list(lacking)}


@pytest.fixture
def file(tmp_path):
    """A file with these averages."""

    def file(*averages, name="glue.json", tasks=TASKS):
        path = tmp_path / name
        path.write_text(json.dumps({"tasks": tasks, "scores": [], "averages": averages, "hours": {}}))
        return path

    return file


def test_a_models_score_is_its_average_with_tasks_after_others(file):
    both = average("a", 0.84), average("a", 0.80, ALL_PRETRAINED)
    assert read_all([file(*both)]) == {"a": 0.84}
    assert read_all([file(*both[::-1])]) == {"a": 0.84}


def test_tasks_that_come_after_no_other_have_one_average(file):
    tasks = {name: {**task, "after": None} for name, task in TASKS.items()}
    assert read_all([file(average("a", 0.8, ALL_PRETRAINED), tasks=tasks)]) == {"a": 0.8}


def test_a_model_that_lacks_a_task_has_no_score(file):
    found = read_all([file(average("a", None, {"mnli": "pretrained"}, ["rte"]), average("b", 0.8))])
    assert found == {"a": None, "b": 0.8}


def test_the_average_of_all_from_the_pretrained_model_does_not_stand_in(file):
    lacking = average("a", None, {"mnli": "pretrained"}, ["rte"]), average("a", 0.80, ALL_PRETRAINED)
    assert read_all([file(*lacking)]) == {"a": None}


def test_an_average_that_lacks_a_task_does_not_hide_the_other(file):
    both = average("a", 0.84), average("a", None, {"mnli": "pretrained"}, ["rte"])
    assert read_all([file(*both)]) == read_all([file(*both[::-1], name="b.json")]) == {"a": 0.84}


def test_no_score_of_a_run_is_an_error(file):
    with pytest.raises(StudyError, match="there is no score of these runs"):
        points_of([], read_all([file(average("a", None, lacking=["rte"]))]))
    assert points_of([], {}) == ([], []), "without files there is nothing to miss"


def test_several_files_are_one(file):
    one, two = file(average("a", 0.8)), file(average("b", 0.9), average("a", 0.8), name="two.json")
    assert read_all([one, two]) == {"a": 0.8, "b": 0.9}


def test_files_that_contradict_are_refused(file):
    with pytest.raises(StudyError, match=r"two.json gives a 0\.9, and an earlier file 0\.8"):
        read_all([file(average("a", 0.8)), file(average("a", 0.9), name="two.json")])


def test_averages_of_other_tasks_are_refused(file):
    other = {**TASKS, "cola": {"metrics": ["mcc"], "after": None}}
    with pytest.raises(StudyError, match=r"two\.json and .+glue\.json have other tasks, metrics or starts"):
        read_all([file(average("a", 0.8)), file(average("b", 0.8), name="two.json", tasks=other)])


@pytest.mark.parametrize(
    "text", ["", "3", "[]", "{}", '{"tasks": {}}', '{"tasks": {}, "averages": [3]}', "\xff"]
)
def test_a_file_that_holds_no_scores_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StudyError, match=r"x\.json isn't a file of scores .*name the glue\.json"):
        read_all([tmp_path / "x.json"])


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"x\.json can't be read \(No such file"):
        read_all([tmp_path / "x.json"])
