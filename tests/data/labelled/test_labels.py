"""Labels: what names a class, in which order classes are, and which labels are refused."""

import math
from decimal import Decimal

import pytest
from labelled_files import sets, write

from cadenza.data import DataError
from cadenza.data.errors import BadRow
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.sets import read
from cadenza.data.labelled.values import class_of, number_of


def labelled(*labels):
    """Ten rows of each label."""
    return [{"text": f"w{n} {label}", "label": label} for n in range(10) for label in labels]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("ham", "ham"),
        (" ham\n", "ham"),
        ("1.0", "1.0"),
        (1, "1"),
        (-1, "-1"),
        (1.0, "1"),
        (-0.0, "0"),
        (Decimal("2.0"), "2"),
        (True, "True"),
        (10**30, str(10**30)),
    ],
)
def test_what_names_a_class(value, name):
    assert class_of(value, None, "here") == name


def test_the_numbers_of_named_classes():
    assert [class_of(value, ["no", "yes"], "here") for value in (0, 1, 1.0)] == ["no", "yes", "yes"]
    assert class_of("no", ["no", "yes"], "here") == "no"
    for value, said in ((-1, "has no label (-1)"), (2, "is 2; the data set names the classes 0 to 1")):
        with pytest.raises(BadRow) as error:
            class_of(value, ["no", "yes"], "here")
        assert str(error.value) == f"here {said}"


@pytest.mark.parametrize("value", [1.5, -0.25, Decimal("3.8")])
def test_a_fraction_names_no_class_and_is_not_skipped(value, tmp_path):
    said = f"is {value}, a number with a fraction, which names no class; set data.target=number"
    with pytest.raises(DataError) as error:
        class_of(value, None, "here")
    assert f"here {said}" in str(error.value)
    assert not isinstance(error.value, BadRow)
    rows = [*labelled("a", "b"), {"text": "w", "label": 1.5}]
    with pytest.raises(DataError, match=r"line 21 is 1\.5, a number with a fraction"):
        sets(tmp_path / "a.jsonl", rows, on_bad_row="skip")


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (-2.5, -2.5), ("3.75", 3.75), (" 1e3 ", 1000.0), (Decimal("0.5"), 0.5), (-100, -100.0)],
)
def test_what_is_a_number(value, number):
    assert number_of(value, None, "here") == number


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "has no label (null)"),
        ("", "has no label (an empty text)"),
        (math.nan, "has no label (NaN)"),
        ("nan", "is nan; it must be a finite number"),
        ("inf", "is inf; it must be a finite number"),
        (-math.inf, "is -inf; it must be a finite number"),
        (1e39, "is 1e+39; it must be a finite number"),  # in float32
        (10**400, f"is 1{'0' * 39}; it must be a finite number"),
        ("good", "is 'good', no number"),
        ("3,5", "is '3,5', no number"),
        (True, "holds bool, no number"),
        ([1.0], "holds list, no number"),
    ],
)
def test_what_is_no_number(value, said):
    with pytest.raises(BadRow) as error:
        number_of(value, None, "here")
    assert str(error.value) == f"here {said}"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("b", "a", "C"), ["C", "a", "b"]),
        ((10, 9, -1), ["-1", "9", "10"]),
        (("10", "9"), ["9", "10"]),
        (("10", "9", "x"), ["10", "9", "x"]),
        ((True, False), ["False", "True"]),
        ((1.0, 0.0), ["0", "1"]),
    ],
)
def test_classes_are_sorted(tmp_path, labels, expected):
    found = sets(tmp_path / "a.jsonl", labelled(*labels))
    assert found.labels == expected
    for each in found.train:
        assert found.labels[each.label] in (each.text.split()[1], each.text.split()[1].removesuffix(".0"))


def test_given_classes_are_in_their_own_order(tmp_path):
    found = sets(tmp_path / "a.jsonl", labelled("a", "b"), labels=["b", "spare", "a"])
    assert found.labels == ["b", "spare", "a"]
    assert {(each.text[-1], each.label) for each in found.train} == {("a", 2), ("b", 0)}


@pytest.mark.parametrize(("wrong", "right"), [("postive", "did you mean 'positive'"), ("x", "valid: neg")])
def test_a_label_that_is_not_given_is_named_with_the_nearest(tmp_path, wrong, right):
    rows = [*labelled("positive", "negative"), {"text": "odd", "label": wrong}]
    with pytest.raises(DataError) as error:
        sets(tmp_path / "a.jsonl", rows, labels=["negative", "positive"])
    said = f"a.jsonl line 21 has the label {wrong!r}, which is none of data.labels; {right}"
    assert said in str(error.value)


@pytest.mark.parametrize("key", ["eval_source", "other_eval"])
def test_a_class_that_training_lacks(tmp_path, key):
    path = write(tmp_path / "b.jsonl", labelled("a", "c"))
    value = {"more": path} if key == "other_eval" else path
    name = "data.other_eval.more" if key == "other_eval" else "data.eval_source"
    found = rf"^{name}: \S+b\.jsonl line 2 has the label 'c', which"
    with pytest.raises(DataError, match=f"{found} is none of the classes; valid: a, b$"):
        sets(tmp_path / "a.jsonl", labelled("a", "b"), **{key: value})
    with pytest.raises(
        DataError, match=f"{found} no training example has; train on it, or leave it out of {name}$"
    ):
        sets(tmp_path / "a.jsonl", labelled("a", "b"), labels=["a", "b", "c"], **{key: value})


def test_one_class_is_refused(tmp_path):
    for labels in (None, ["a", "b"]):
        with pytest.raises(
            DataError, match=r"^data\.label_field: every training example has the label 'a'; "
        ):
            sets(tmp_path / "a.jsonl", labelled("a"), labels=labels)


MANY = {
    "all different": [f"{n / 8:.3f}" for n in range(60)],
    "few, with fractions": [f"{n % 21 / 8:.3f}" for n in range(600)],
    "integers": [str(n) for n in range(60)],
}


@pytest.mark.parametrize("kind", MANY)
def test_numbers_that_are_hardly_classes(tmp_path, kind):
    rows = [{"text": f"w{n}", "label": label} for n, label in enumerate(MANY[kind])]
    said = (
        r"^data\.label_field: data\.source has \d\d different labels in \d+ examples; set data\.target=number"
    )
    with pytest.raises(DataError, match=said):
        sets(tmp_path / "a.jsonl", rows)
    assert sets(tmp_path / "a.jsonl", rows, target="number").labels == []
    named = sorted({row["label"] for row in rows})
    assert sets(tmp_path / "a.jsonl", rows, labels=named).labels == named


def test_texts_that_are_hardly_classes(tmp_path):
    rows = [{"text": f"w{n}", "label": f"a sentence {n}"} for n in range(60)]
    with pytest.raises(
        DataError, match=r"60 different labels in 60 examples; name the field with the classes, or"
    ):
        sets(tmp_path / "a.jsonl", rows)


def test_many_classes_that_come_often_are_classes(tmp_path):
    for names in ([f"name {n}" for n in range(40)], [str(n) for n in range(40)]):
        rows = [{"text": f"w{n}", "label": names[n % 40]} for n in range(120)]
        assert len(sets(tmp_path / "a.jsonl", rows).labels) == 40
    few = [{"text": f"w{n}", "label": n} for n in range(20)]
    assert len(sets(tmp_path / "a.jsonl", few, eval_source=write(tmp_path / "b.jsonl", few)).labels) == 20


def test_numbers_in_a_table_are_parsed(tmp_path):
    rows = [{"text": f"w{n}", "label": n / 2} for n in range(20)]
    found = read(LabelledConfig(source=write(tmp_path / "a.csv", rows, ".csv"), target="number"))
    assert {each.label for each in (*found.train, *found.evaluation)} == {n / 2 for n in range(20)}
    assert all(isinstance(each.label, float) for each in found.train)
