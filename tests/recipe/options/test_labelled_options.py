"""Every option of the section `data` of a recipe for labelled text, by what it changes."""

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from labelled_files import GLUE, KINDS, bert, glue, write  # noqa: F401

from cadenza.data import DataError, LabelledConfig, build_labelled_dataspec
from cadenza.data.labelled.sets import read
from cadenza.recipe import load

CLASSIFIES = "model.objective=text_classification"
TEXT = " ".join(f"w{n}" for n in range(20))
ROWS = [
    {"text": f"w{n} {TEXT}", "second": "w1 w2", "label": "ab"[n % 2], "score": str(n), "other": "cd"[n % 2]}
    for n in range(40)
]


@pytest.fixture
def found(tmp_path):
    """What can be seen of the data of a recipe."""
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.jsonl", ROWS[:20])
    latin = [{"text": "é\tw1", "label": "ab"[n % 2]} for n in range(10)]
    (tmp_path / "c.csv").write_bytes(KINDS[".csv"](latin).decode().encode("latin-1"))
    (tmp_path / "bad.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes() + b"{}\n")

    def found(*pairs):
        given = (f"data.source={tmp_path}/a.jsonl", *(pair.format(tmp_path) for pair in pairs))
        return facts(load([], [CLASSIFIES, *given]).data)

    return found


def facts(cfg):
    sets = read(cfg)
    examples = [replace(each, text=each.text.replace("é", "w3")) for each in sets.train]
    spec = build_labelled_dataspec(examples, bert(), cfg, train=False, batch_size=4, seed=1)
    return SimpleNamespace(
        sizes=(len(sets.train), len(sets.evaluation)),
        others={name: len(each) for name, each in sets.others.items()},
        labels=sets.labels,
        held={each.text for each in sets.evaluation},
        first=sets.train[0].text,
        pair=sets.train[0].pair,
        longest=int(spec.dataloader.dataset.lengths().max()),
        workers=spec.dataloader.num_workers,
        float=spec.dataloader.collate_fn.label.is_floating_point,
    )


# The option, its pairs, what is looked at, and that before and after.
FILES = {
    "source": (["data.source={}/b.jsonl"], "sizes", (36, 4), (18, 2)),
    "eval_source": (["data.eval_source={}/b.jsonl"], "sizes", (36, 4), (40, 20)),
    "other_eval": (["data.other_eval.more={}/b.jsonl"], "others", {}, {"more": 20}),
    "text_field": (["data.text_field=second"], "first", ROWS[0]["text"], "w1 w2"),
    "pair_field": (["data.pair_field=second"], "pair", None, "w1 w2"),
    "label_field": (["data.label_field=other"], "labels", ["a", "b"], ["c", "d"]),
    "target": (["data.target=number", "data.label_field=score"], "float", False, True),
    "labels": (["data.labels=[b,a]"], "labels", ["a", "b"], ["b", "a"]),
    "max_seq_len": (["data.max_seq_len=8"], "longest", 23, 8),
    "eval_fraction": (["data.eval_fraction=0.5"], "sizes", (36, 4), (20, 20)),
    "train_examples": (["data.train_examples=10"], "sizes", (36, 4), (10, 4)),
    "eval_examples": (["data.eval_examples=2"], "sizes", (36, 4), (36, 2)),
    "num_workers": (["data.num_workers=2"], "workers", 0, 2),
}


@pytest.mark.parametrize("option", FILES)
def test_an_option_of_files(option, found):
    pairs, name, before, after = FILES[option]
    assert getattr(found(), name) == before
    assert getattr(found(*pairs), name) == after


def test_the_seed_of_the_split(found):
    assert found().held != found("data.split_seed=18").held
    assert found().held == found("seed=3").held


def test_the_encoding(found):
    pair = "data.source={}/c.csv"
    with pytest.raises(DataError, match=r"c\.csv line 2 is not UTF-8 \(byte 0xe9\)"):
        found(pair)
    assert found(pair, "data.encoding=latin-1").first == "é\tw1"


def test_bad_rows(found):
    pair = "data.source={}/bad.jsonl"
    with pytest.raises(DataError, match=r"bad\.jsonl line 41 has no 'text'"):
        found(pair)
    assert found(pair, "data.on_bad_row=skip").sizes == (36, 4)


HUB = {
    "subset": ("data.subset=qqp", [("some/set", "qqp", "train"), ("some/set", "qqp", "validation")]),
    "split": ("data.split=validation", [("some/set", "mrpc", "validation")] * 2),
    "eval_split": ("data.eval_split=train", [("some/set", "mrpc", "train")] * 2),
}


@pytest.mark.parametrize("option", HUB)
def test_an_option_of_hub_sets(option, glue):  # noqa: F811
    pair, asked = HUB[option]
    field = GLUE["qqp" if option == "subset" else "mrpc"][0][0]
    given = ["data.source=some/set", "data.subset=mrpc", f"data.text_field={field}", pair]
    read(load([], [CLASSIFIES, *given]).data)
    assert glue == asked


def test_no_option_is_missing_here():
    elsewhere = {"split_seed", "encoding", "on_bad_row"}
    assert {*FILES, *HUB, *elsewhere} == {f.name for f in fields(LabelledConfig)}
