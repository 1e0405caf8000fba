"""Data sets on the Hub: GLUE's tasks with their real fields, classes and splits, from a stand-in."""

import pytest
from labelled_files import GLUE, ROWS, glue, write  # noqa: F401

from cadenza.data import DataError, hub
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.sets import read


def task(name, **options):
    """The config of a task."""
    fields, names, splits = GLUE[name]
    values = {"source": "nyu-mll/glue", "subset": name, "text_field": fields[0], "pair_field": None}
    values |= {"pair_field": fields[1]} if len(fields) > 1 else {}
    values |= {"target": "number"} if names is None else {}
    values |= {"eval_split": splits[1]}
    return LabelledConfig(**{**values, **options})


@pytest.mark.parametrize("name", GLUE)
def test_each_task_resolves(glue, name):  # noqa: F811
    fields, names, splits = GLUE[name]
    found = read(task(name))
    assert glue == [("nyu-mll/glue", name, "train"), ("nyu-mll/glue", name, splits[1])]
    assert found.labels == (names or [])
    assert (len(found.train), len(found.evaluation)) == (24, 24)
    for split, examples in (("train", found.train), (splits[1], found.evaluation)):
        for n, each in enumerate(examples):
            assert each.text == f"{split} {fields[0]} w{n}"
            assert each.pair == (f"{split} {fields[1]} w{n}" if len(fields) > 1 else None)
            assert each.label == (n % len(names) if names else n % 5 * 1.25)
            assert each.place == f"nyu-mll/glue {name} {split} row {n + 1}"


def test_mnli_has_two_splits_to_evaluate_on(glue):  # noqa: F811
    found = read(task("mnli", other_eval={"mismatched": "validation_mismatched"}))
    assert [call[2] for call in glue] == ["train", "validation_matched", "validation_mismatched"]
    assert {each.text.split()[0] for each in found.others["mismatched"]} == {"validation_mismatched"}


@pytest.mark.parametrize("name", [name for name in GLUE if GLUE[name][1]])
def test_test_splits_have_no_labels(glue, name):  # noqa: F811
    split = GLUE[name][2][-1]
    said = rf"^data\.label_field: 'label' of nyu-mll/glue {name} {split} row 1 has no label \(-1\)$"
    with pytest.raises(DataError, match=said):
        read(task(name, eval_split=split))
    with pytest.raises(
        DataError, match=rf"^data\.eval_split: nyu-mll/glue {name} {split}: each of its 24 rows"
    ):
        read(task(name, eval_split=split, on_bad_row="skip"))


def test_given_labels_order_the_classes_that_a_set_names(glue):  # noqa: F811
    plain, given = read(task("rte")), read(task("rte", labels=["not_entailment", "entailment"]))
    assert [each.label for each in given.train] == [1 - each.label for each in plain.train]
    with pytest.raises(
        DataError, match=r"has the label 'not_entailment', which is none of data\.labels; did"
    ):
        read(task("rte", labels=["no_entailment", "entailment"]))


def test_numbers_with_fractions_are_no_classes(glue):  # noqa: F811
    with pytest.raises(DataError, match=r"stsb train row 2 is 1\.25, .*; set data\.target=number"):
        read(task("stsb", target="class"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"text_field": "text"},
            r"^data\.text_field: nyu-mll/glue has no 'text'; it has question1",
        ),
        ({"pair_field": "other"}, r"^data\.pair_field: nyu-mll/glue has no 'other'; it has question1"),
        ({"label_field": "class"}, r"^data\.label_field: nyu-mll/glue has no 'class'; it has question1"),
        (
            {"split": "most"},
            r'Unknown split "most".*; check the name, data\.subset, data\.split and ',
        ),
        (
            {"eval_split": "dev"},
            r'Unknown split "dev".*; check the name, data\.subset, data\.eval_split and ',
        ),
        (
            {"other_eval": {"x": "dev"}},
            r'Unknown split "dev".*; check the name, data\.subset, data\.other_eval\.x and ',
        ),
    ],
)
def test_what_is_wrong_is_said(glue, options, said):  # noqa: F811
    with pytest.raises(DataError, match=said) as error:
        read(task("qqp", **options))
    assert "\n" not in str(error.value)


def test_the_hub_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    with pytest.raises(DataError, match=r"^data\.source: data set 'nyu-mll/glue' can't be reached"):
        read(task("rte"))


def test_local_files_evaluate_a_set_of_the_hub(glue, tmp_path):  # noqa: F811
    rows = [{"sentence1": f"a{n}", "sentence2": "b", "label": GLUE["rte"][1][n % 2]} for n in range(6)]
    path = write(tmp_path / "a.jsonl", rows)
    found = read(task("rte", eval_source=path, other_eval={"more": path, "dev": "validation"}))
    assert [len(each) for each in (found.train, found.evaluation, found.others["more"])] == [24, 6, 6]
    assert [each.label for each in found.evaluation] == [0, 1, 0, 1, 0, 1]
    assert len(found.others["dev"]) == 24


def test_fewer_examples_of_a_set(glue):  # noqa: F811
    found = read(task("mnli", train_examples=6, eval_examples=3))
    assert sorted(each.label for each in found.train) == [0, 0, 1, 1, 2, 2]
    assert sorted(each.label for each in found.evaluation) == [0, 1, 2]


def test_names_of_a_field_within_a_field(monkeypatch):
    import datasets

    inner = {"body": datasets.Value("string"), "kind": datasets.ClassLabel(names=["no", "yes"])}
    rows = {"meta": [{"body": f"w{n}", "kind": n % 2} for n in range(8)]}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features({"meta": inner}))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, split: made)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    found = read(LabelledConfig(source="some/set", text_field="meta.body", label_field="meta.kind"))
    assert found.labels == ["no", "yes"]
    assert [each.label for each in found.train] == [0, 1] * 4
    assert found.train[0].place == "some/set train row 1"


def test_a_set_without_names_has_sorted_classes(monkeypatch):
    import datasets

    made = datasets.Dataset.from_list(ROWS)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, subset, split: made)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    assert read(LabelledConfig(source="some/set")).labels == ["ham", "spam"]
