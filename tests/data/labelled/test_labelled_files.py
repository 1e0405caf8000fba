"""Labelled text from files of every kind: what is read, and what is said of rows and files that don't fit."""

import gzip

import pyarrow as pa
import pytest
from labelled_files import KINDS, ROWS, lines, sets, table, write
from text_files import parquet_bytes

from cadenza.data import DataError
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.sets import read, texts

NESTED = [{"id": n, "meta": {"body": f"w{n}", "kind": {"name": "ab"[n % 2]}}} for n in range(20)]


def whole(found):
    """All examples, in the order of their places."""
    return sorted([*found.train, *found.evaluation], key=lambda each: int(each.place.split()[-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", ROWS, kind)
    found = read(LabelledConfig(source=path))
    assert found.labels == ["ham", "spam"]
    assert [each.text for each in whole(found)] == [row["text"] for row in ROWS]
    assert [found.labels[each.label] for each in whole(found)] == [row["label"] for row in ROWS]
    first = {".csv": "line 2", ".tsv": "line 2", ".jsonl": "line 1"}.get(kind, "row 1")
    assert whole(found)[0].place == f"{path} {first}"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_pairs_and_numbers(tmp_path, kind):
    rows = [{"one": f"a{n}", "two": f"b{n}", "score": n / 4} for n in range(20)]
    fields = {"text_field": "one", "pair_field": "two", "label_field": "score", "target": "number"}
    found = read(LabelledConfig(source=write(tmp_path / f"a{kind}", rows, kind), **fields))
    assert found.labels == []
    assert [(each.text, each.pair, each.label) for each in whole(found)] == [
        (f"a{n}", f"b{n}", n / 4) for n in range(20)
    ]
    assert sorted(texts(found)) == sorted(x for each in found.train for x in (each.text, each.pair))


@pytest.mark.parametrize("kind", [".jsonl", ".json", ".parquet", ".arrow"])
def test_fields_within_fields(tmp_path, kind):
    path = write(tmp_path / f"a{kind}", NESTED, kind)
    found = read(LabelledConfig(source=path, text_field="meta.body", label_field="meta.kind.name"))
    assert [each.text for each in whole(found)] == [f"w{n}" for n in range(20)]
    assert [each.label for each in whole(found)] == [n % 2 for n in range(20)]


def test_compressed_files_and_folders(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table(ROWS[:15], ",")))
    (tmp_path / "b.jsonl").write_bytes(lines(ROWS[15:]))
    found = read(LabelledConfig(source=str(tmp_path)))
    assert len(found.train) + len(found.evaluation) == 30


def test_a_cell_of_many_lines_has_the_place_of_its_first(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",a\nthree,b\n')
    found = read(LabelledConfig(source=str(tmp_path / "a.csv"), eval_source=copy(tmp_path)))
    assert [each.place.split()[-1] for each in found.train] == ["2", "4"]


def copy(folder):
    (folder / "copy.csv").write_bytes((folder / "a.csv").read_bytes())
    return str(folder / "copy.csv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["text_field", "pair_field", "label_field"])
def test_a_missing_field_is_named_with_its_option(tmp_path, kind, option):
    path = write(tmp_path / f"a{kind}", ROWS, kind)
    with pytest.raises(
        DataError, match=rf"^data\.{option}: \S+a\{kind}.* has no 'gone'; it has .*text, label"
    ):
        read(LabelledConfig(source=path, **{option: "gone"}))


def test_a_text_file_has_no_fields(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    said = (
        r"^data\.source: \S+a\.txt has no fields, which data\.text_field and data\.label_field name; "
        r"name a file of \.csv, "
    )
    with pytest.raises(DataError, match=said):
        read(LabelledConfig(source=str(tmp_path / "a.txt")))


BAD = {
    '{"text": null, "label": "ham"}': "data.text_field: 'text' of {} holds NoneType, not text",
    '{"text": 3, "label": "ham"}': "data.text_field: 'text' of {} holds int, not text",
    '{"label": "ham"}': "data.text_field: {} has no 'text'; it has label",
    '{"text": " ", "label": "ham"}': "data.text_field: 'text' of {} is empty",
    '{"text": "\\ud800", "label": "ham"}': "data.text_field: 'text' of {} holds half a character",
    '{"text": "a"}': "data.label_field: {} has no 'label'; it has text",
    '{"text": "a", "label": null}': "data.label_field: 'label' of {} has no label (null)",
    '{"text": "a", "label": ""}': "data.label_field: 'label' of {} has no label (an empty text)",
    '{"text": "a", "label": NaN}': "data.label_field: 'label' of {} has no label (NaN)",
    '{"text": "a", "label": Infinity}': "data.label_field: 'label' of {} is inf, which names no class",
    '{"text": "a", "label": ["ham"]}': "data.label_field: 'label' of {} holds list; a class is a text",
    '{"text": "a", "text": "b", "label": "ham"}': "data.text_field: {} has 'text' more than once",
    "{": "data.source: {} is not JSON",
}


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_ends_the_run_or_is_left_out(tmp_path, row, capsys):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(ROWS) + row.encode() + b"\n" + lines([{"text": "end", "label": "ham"}]))
    said = BAD[row].format(f"{path} line 31")
    with pytest.raises(DataError) as error:
        read(LabelledConfig(source=str(path)))
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    found = read(LabelledConfig(source=str(path), on_bad_row="skip"))
    assert len(whole(found)) == 31
    out = capsys.readouterr().out
    assert f"data.source: {path}: 1 of 32 rows are bad and left out; the first: {said}" in out


def test_a_missing_cell_and_a_null_of_a_column(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,x\nb,\n")
    with pytest.raises(DataError, match=r"a\.csv line 3 has no label \(an empty text\)$"):
        read(LabelledConfig(source=str(tmp_path / "a.csv")))
    made = pa.table({"text": ["a", None], "label": [1.0, None]})
    (tmp_path / "b.parquet").write_bytes(parquet_bytes(made))
    with pytest.raises(DataError, match=r"'text' of \S+b\.parquet row 2 holds NoneType, not text$"):
        read(LabelledConfig(source=str(tmp_path / "b.parquet")))


def test_one_text_of_a_pair_may_be_empty(tmp_path):
    rows = [{"a": "" if n % 2 else "w1", "b": f"w{n}", "label": n % 2} for n in range(8)]
    found = sets(tmp_path / "a.jsonl", rows, text_field="a", pair_field="b")
    assert len(whole(found)) == 8
    with pytest.raises(DataError, match=r"^data\.text_field: 'a' of \S+ line 9 is empty$"):
        sets(tmp_path / "a.jsonl", [*rows, {"a": "", "b": " ", "label": 1}], text_field="a", pair_field="b")


@pytest.mark.parametrize("key", ["source", "eval_source", "other_eval"])
@pytest.mark.parametrize(
    ("content", "said"), [(b"", "holds no example"), (None, "no file matches"), (b"{}\n", "has no 'text'")]
)
def test_each_source_is_named_by_its_key(tmp_path, key, content, said):
    good, path = write(tmp_path / "good.jsonl", ROWS), tmp_path / "a.jsonl"
    if content is not None:
        path.write_bytes(content)
    value = {"more": str(path)} if key == "other_eval" else str(path)
    named = "data.other_eval.more" if key == "other_eval" else f"data.{key}"
    named = "data.text_field" if content == b"{}\n" else named
    with pytest.raises(DataError, match=f"^{named}: .*{said}"):
        read(LabelledConfig(**{"source": good, key: value}))


def test_files_to_evaluate_on(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    held, more = (write(tmp_path / f"{name}.jsonl", ROWS[:n]) for name, n in (("b", 4), ("c", 7)))
    found = read(LabelledConfig(source=source, eval_source=held, other_eval={"more": [more], "none": None}))
    assert [len(each) for each in (found.train, found.evaluation, found.others["more"])] == [30, 4, 7]
    assert list(found.others) == ["more"]


@pytest.mark.parametrize("source", ["{}", "{}/*.jsonl", "{}/a.jsonl"])
def test_a_file_is_not_for_training_and_evaluation(tmp_path, source):
    path = write(tmp_path / "a.jsonl", ROWS)
    said = r"^data\.eval_source: \S+a\.jsonl is a file of data\.source, too; take it out of one$"
    with pytest.raises(DataError, match=said):
        read(LabelledConfig(source=source.format(tmp_path), eval_source=path))


def test_a_list_holds_local_files_alone(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(
        DataError, match=r"^data\.source: nyu/glue is neither .*; a data set on the Hub is named"
    ):
        read(LabelledConfig(source=[path, "nyu/glue"]))
    with pytest.raises(
        DataError, match=r"^data\.eval_source: nyu/glue is neither a file, nor a folder, nor a"
    ):
        read(LabelledConfig(source=path, eval_source="nyu/glue"))
    with pytest.raises(DataError, match=r"^data\.other_eval\.x: test is neither a file, nor a folder, nor a"):
        read(LabelledConfig(source=path, other_eval={"x": "test"}))
    with pytest.raises(DataError, match=r"a\.jsonl is read twice"):
        read(LabelledConfig(source=[path, f"{tmp_path}/*.jsonl"]))
