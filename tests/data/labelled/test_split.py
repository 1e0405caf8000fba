"""The split by a hash of the texts, and the choice of fewer examples."""

import random
from collections import Counter

import pytest
from labelled_files import sets

from cadenza.data.labelled.rows import Row
from cadenza.data.labelled.split import divided, first, key_of


def rows(**counts):
    """So many rows of each label, with texts of their own."""
    return [Row(f"{label} {n}", None, label, "") for label, count in counts.items() for n in range(count)]


def counted(found):
    return dict(Counter(row.label for row in found))


@pytest.mark.parametrize("seed", [0, 17, 2**32 - 1])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_the_share_of_each_class(seed, fraction):
    train, held = divided(rows(a=200, b=60), fraction, seed, classes=True)
    assert counted(held) == {"a": round(200 * fraction), "b": round(60 * fraction)}
    assert sorted(train + held) == sorted(rows(a=200, b=60))


def test_a_class_of_two_is_on_either_side():
    train, held = divided(rows(a=100, b=2, c=1), 0.01, 3, classes=True)
    assert counted(held) == {"a": 1, "b": 1}
    assert counted(train) == {"a": 99, "b": 1, "c": 1}
    train, held = divided(rows(a=100, b=2, c=1), 0.99, 3, classes=True)
    assert counted(train) == {"a": 1, "b": 1, "c": 1}


def test_neither_order_nor_anything_but_seed_and_text_matters():
    plain = divided(rows(a=50, b=50), 0.2, 17, classes=True)
    mixed = rows(a=50, b=50)
    random.Random(1).shuffle(mixed)
    moved = [row._replace(place=f"other {n}") for n, row in enumerate(mixed)]
    assert {row.text for row in divided(moved, 0.2, 17, classes=True)[1]} == {row.text for row in plain[1]}
    assert plain == divided(rows(a=50, b=50), 0.2, 17, classes=True)
    assert plain[1] != divided(rows(a=50, b=50), 0.2, 18, classes=True)[1], "another seed, another split"
    assert len({key_of(Row("a", pair, "x", ""), 1) for pair in (None, "b", "a")}) == 3
    assert key_of(Row("ab", "c", "x", ""), 1) != key_of(Row("a", "bc", "x", ""), 1)
    assert key_of(Row("text", None, "x", ""), 17).hex()[:8] == "0c919e3c", "on every machine"


def test_no_text_is_on_both_sides():
    """Each text stands three times, every second one once with another label, which is trained on."""
    doubled = [Row(f"text {n}", None, label, "") for n in range(100) for label in ("a", "a", "ab"[n % 2])]
    train, held = divided(doubled, 0.3, 17, classes=True)
    assert len(train) + len(held) == 300
    assert len(held) == 3 * 15, "0.3 of the 50 texts with one label"
    assert not {row.text for row in train} & {row.text for row in held}


def test_numbers_are_split_as_one_class():
    many = [Row(f"text {n}", f"pair {n}", n / 7, "") for n in range(90)]
    train, held = divided(many, 0.1, 17, classes=False)
    assert (len(train), len(held)) == (81, 9)


def test_one_text_alone_is_trained_on():
    train, held = divided([Row("a", None, "x", "")] * 4, 0.5, 17, classes=True)
    assert (len(train), len(held)) == (4, 0)


def test_fewer_are_taken_of_each_class_in_proportion():
    many = rows(a=300, b=100)
    for limit in (4, 40, 200):
        assert counted(first(many, limit, 17, classes=True)) == {"a": limit * 3 // 4, "b": limit // 4}
    assert first(many, None, 17, classes=True) == many
    assert first(many, 400, 17, classes=True) == many
    assert len(first(many, 399, 17, classes=True)) == 399
    assert len(first(many, 1, 17, classes=True)) == 1


def test_fewer_are_some_of_more_in_their_order():
    many = rows(a=60, b=60)
    few, more = (first(many, limit, 17, classes=True) for limit in (10, 30))
    assert set(few) < set(more)
    assert few == [row for row in many if row in few]
    assert set(first(many[::-1], 10, 17, classes=True)) == set(few)
    assert set(first(many, 10, 18, classes=True)) != set(few)


def test_the_options_arrive(tmp_path):
    many = [{"text": f"w{n}", "label": "ab"[n % 2]} for n in range(100)]
    path = tmp_path / "a.jsonl"

    def sizes(**options):
        found = sets(path, many, **options)
        return len(found.train), len(found.evaluation)

    assert sizes() == (90, 10)
    assert sizes(eval_fraction=0.3) == (70, 30)
    assert sizes(train_examples=20) == (20, 10)
    assert sizes(eval_examples=4) == (90, 4)
    one, other = (sets(path, many, split_seed=seed).evaluation for seed in (1, 2))
    assert {each.text for each in one} != {each.text for each in other}


@pytest.mark.parametrize("seed", range(5))
def test_a_text_with_several_labels_is_trained_on(seed):
    """It may be the only text of a class."""
    found = [*rows(a=20, b=20), Row("both", None, "c", ""), Row("both", None, "a", "")]
    train, held = divided(found, 0.5, seed, classes=True)
    assert counted(held) == {"a": 10, "b": 10}
    assert counted(train) == {"a": 11, "b": 10, "c": 1}
