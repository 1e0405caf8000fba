"""Mixtures: each source gives its share of every epoch, row after row, before a row comes twice."""

import json
from collections import Counter

import numpy as np
import pytest
from words import Tagged, tokenized

from cadenza.data import DataError, TextConfig, build_causal_dataspec, build_dataspec, documents, train_texts
from cadenza.data.text.datasets.mixture import Joined, Mixture, apportioned
from cadenza.data.text.finite import is_eval

SIZES = {"one": 30, "two": 12, "three": 5}


@pytest.fixture
def files(tmp_path):
    """Files whose documents are of 1, 2 and 3 words of 8 letters, and longer ones by their number."""
    paths = {}
    for words, (name, count) in enumerate(SIZES.items(), 1):
        paths[name] = str(tmp_path / f"{name}.jsonl")
        rows = [json.dumps({"text": " ".join(["w" * (words + 5)] * (n + 1))}) + "\n" for n in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    return paths


def sets():
    return [
        tokenized([" ".join(["w" * kind] * (n + 1)) for n in range(count)], Tagged(), 64)
        for kind, count in enumerate(SIZES.values(), 1)
    ]


def kinds(mixture, draws):
    """The source and the row of each draw: the letters of its words, and their number."""
    rows = [mixture[draw]["input_ids"][1:-1].tolist() for draw in draws]
    return [(row[0] - 5, len(row) - 1) for row in rows]


def test_each_source_gives_its_share_of_every_epoch():
    mixture = Mixture(sets(), [0.5, 0.3, 0.2], seed=3)
    assert len(mixture) == 47
    for epoch in range(4):
        found = Counter(kind for kind, _ in kinds(mixture, range(47 * epoch, 47 * epoch + 47)))
        assert found == {1: 24, 2: 14, 3: 9}, "of 23.5, 14.1 and 9.4"


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
def test_no_row_comes_twice_before_each_came_once(shares):
    mixture = Mixture(sets(), shares, seed=3)
    drawn = kinds(mixture, range(47 * 20))
    for kind, size in enumerate(SIZES.values(), 1):
        rows = [row for found, row in drawn if found == kind]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            assert len(set(part)) == len(part)
        if len(rows) >= 2 * size:
            assert rows[:size] != rows[size : 2 * size], "another order"


def test_a_draw_stands_for_the_same_row_each_time():
    first, again, other = (Mixture(sets(), [0.5, 0.3, 0.2], seed) for seed in (3, 3, 4))
    draws = np.random.default_rng(0).permutation(47 * 6).tolist()
    assert kinds(first, draws) == kinds(again, draws)
    assert kinds(first, draws) != kinds(other, draws)
    assert dict(zip(draws, kinds(first, draws), strict=True)) == dict(enumerate(kinds(again, range(47 * 6))))
    assert first[50]["draw"] == 50


def test_a_batch_has_the_rows_of_its_draws():
    draws = [90, 3, 46, 3, 140]
    for dataset in (Mixture(sets(), [0.5, 0.3, 0.2], seed=3), Joined(sets())):
        for draw, row in zip(draws, dataset.__getitems__(draws), strict=True):
            assert row["draw"] == draw
            assert row["input_ids"].tolist() == dataset[draw]["input_ids"].tolist()


def test_evaluation_takes_every_row_once():
    joined = Joined(sets())
    assert kinds(joined, range(47)) == [
        (k, n) for k, size in enumerate(SIZES.values(), 1) for n in range(size)
    ]
    assert joined[48]["draw"] == 48


@pytest.mark.parametrize(
    ("total", "shares", "expected"), [(10, [1 / 3] * 3, [4, 3, 3]), (5, [0.9, 0.1], [5, 0])]
)
def test_shares_become_whole_numbers(total, shares, expected):
    counts = apportioned(total, shares)
    assert sum(counts) == total
    assert counts == expected


def config(files, train=True, **options):
    mixture = [{"source": files["one"], "weight": 3}, {"source": [files["two"]], "weight": 1}]
    return TextConfig(mixture=mixture, eval_fraction=0.3, max_seq_len=64, **options)


@pytest.mark.parametrize("packed", [False, True])
def test_batches_of_a_mixture(files, packed):
    spec = build_dataspec(config(files), Tagged(), train=True, batch_size=2, seed=1, packed=packed)
    rows = [spec.dataloader.dataset[n]["input_ids"] for n in range(len(spec.dataloader.dataset))]
    letters = [set((row[row > 4] - 5).tolist()) for row in rows]
    assert all(len(each) == 1 for each in letters), "a row is of one source"
    assert sum(each == {6} for each in letters) == apportioned(len(rows), [0.75, 0.25])[0]
    parts = [
        build_dataspec(
            TextConfig(source=files[name], eval_fraction=0.3, max_seq_len=64),
            Tagged(),
            train=True,
            batch_size=1,
            seed=1,
            packed=packed,
        )
        for name in ("one", "two")
    ]
    assert len(rows) == sum(len(part.dataloader.dataset) for part in parts)


def test_windows_of_a_mixture_and_its_evaluation(files):
    spec = build_causal_dataspec(config(files), Tagged(), train=True, batch_size=1, seed=1)
    letters = [set(batch["input_ids"][batch["input_ids"] > 4].tolist()) for batch in spec.dataloader]
    assert all(len(each) == 1 for each in letters)
    evaluation = build_dataspec(config(files), Tagged(), train=False, batch_size=1, seed=1)
    held = {
        name: build_dataspec(
            TextConfig(source=files[name], eval_fraction=0.3), Tagged(), train=False, batch_size=1, seed=1
        )
        for name in ("one", "two")
    }
    assert len(evaluation.dataloader.dataset) == sum(len(spec.dataloader.dataset) for spec in held.values())
    few = build_dataspec(config(files, eval_documents=4), Tagged(), train=False, batch_size=1, seed=1)
    assert len(few.dataloader.dataset) == 4
    own = build_dataspec(
        config(files, eval_source=files["three"]), Tagged(), train=False, batch_size=1, seed=1
    )
    assert len(own.dataloader.dataset) == SIZES["three"]


def test_a_tokenizer_is_trained_on_all_sources(files):
    found = list(train_texts(config(files), limit=8))
    assert [len(text.split()[0]) for text in found] == [6] * 6 + [7] * 2


def test_an_own_field_of_a_source(tmp_path, files):
    (tmp_path / "b.jsonl").write_text('{"body": "wwww"}\n' * 3)
    mixture = [
        {"source": files["one"], "weight": 1},
        {"source": str(tmp_path / "b.jsonl"), "weight": 1, "text_field": "body"},
    ]
    cfg = TextConfig(mixture=mixture, eval_source=files["two"])
    assert "wwww" in set(train_texts(cfg))


@pytest.mark.parametrize(
    ("mixture", "said"),
    [
        ([], r"data.mixture is \[\]; it must list sources"),
        ([{"weight": 1}], r"data.mixture\[0\].source is missing; an entry has a source and a weight"),
        ([{"source": "a.txt"}], r"data.mixture\[0\].weight is missing; an entry"),
        ([{"source": 5, "weight": 1}], r"data.mixture\[0\].source is 5; it must name files"),
        ([{"source": ["a", 5], "weight": 1}], r"data.mixture\[0\].source is \['a', 5\]; it must name files"),
        (
            [{"source": "a.txt", "weight": 10**400}],
            r"data.mixture\[0\].weight is 1000.*; it must",
        ),
        (
            [{"source": "a.txt", "weight": 1e200}],
            r"data.mixture\[0\].weight is 1e\+200; it must",
        ),
        (
            [{"source": "a.txt", "weight": 1, "text_field": None}],
            r"data.mixture\[0\].text_field is None;",
        ),
        (
            [{"source": "a.txt", "weight": 1, "encoding": "x"}],
            r"data.mixture\[0\].encoding is 'x'; it",
        ),
        ([{"source": "a.txt", "weight": -1}], r"data.mixture\[0\].weight is -1; it must be"),
        ([{"source": "a.txt", "weight": True}], r"data.mixture\[0\].weight is True; it must be"),
        ([{"source": "a.txt", "weight": float("inf")}], r"data.mixture.*finite"),
        (
            [{"source": "a.txt", "weight": 1, "epochs": 2}],
            r"data.mixture\[0\] has the unknown key 'epochs'; it may",
        ),
    ],
)
def test_an_entry_that_does_not_fit(mixture, said):
    with pytest.raises(DataError, match=f"^{said}"):
        TextConfig(mixture=mixture)


def test_what_a_mixture_cannot_be(files, tmp_path):
    entry = {"source": files["one"], "weight": 1}
    with pytest.raises(
        DataError, match=r"^data.source is 'a.txt' and data.mixture is set; name one of the two"
    ):
        TextConfig(source="a.txt", mixture=[entry])
    streamed = TextConfig(mixture=[entry, {"source": "some/set", "weight": 1}])
    with pytest.raises(
        DataError, match=r"data.mixture needs a source that is read as a whole; some/set is a stream"
    ):
        build_dataspec(streamed, Tagged(), train=True, batch_size=1, seed=1)
    held = next(text for text in map(str, range(99)) if is_eval(text, 0.5))
    (tmp_path / "none.jsonl").write_text(json.dumps({"text": held}))
    entries = [entry, {"source": str(tmp_path / "none.jsonl"), "weight": 1}]
    empty = TextConfig(mixture=entries, eval_fraction=0.5)
    with pytest.raises(DataError, match=r"data.mixture\[1\].source gives no rows to train on; give it more"):
        build_dataspec(empty, Tagged(), train=True, batch_size=1, seed=1)


def test_a_source_that_would_never_be_read(files):
    mixture = [{"source": files["one"], "weight": 1}, {"source": files["two"], "weight": 1e-6}]
    said = r"^data.mixture\[1\]: its weight gives it none of the \d+ rows of an epoch; raise it, or leave"
    with pytest.raises(DataError, match=said):
        build_dataspec(TextConfig(mixture=mixture), Tagged(), train=True, batch_size=1, seed=1)


def test_an_error_names_the_entry(files):
    mixture = [{"source": files["one"], "weight": 1}, {"source": "gone.jsonl", "weight": 1}]
    cfg = TextConfig(mixture=mixture)
    for call in (lambda: list(train_texts(cfg)), lambda: documents(cfg, train=True)):
        with pytest.raises(DataError, match=r"^data.mixture\[1\].source: no file matches gone.jsonl"):
            call()


def test_a_few_documents_of_a_mixture_are_evaluated(files):
    spec = build_dataspec(config(files, eval_documents=1), Tagged(), train=False, batch_size=1, seed=1)
    assert len(spec.dataloader.dataset) == 1


def test_no_tokenizer_is_trained_where_a_source_has_ids(files):
    mixture = [{"source": files["one"], "weight": 1}, {"source": "b.jsonl", "weight": 1, "ids_field": "ids"}]
    with pytest.raises(DataError, match=r"^data.ids_field: ids have no text to train a tokenizer on"):
        list(train_texts(TextConfig(mixture=mixture)))
