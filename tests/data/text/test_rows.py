"""The text of a row: a field, a field within a field, and what is said if there is none."""

import json

import pytest
from text_files import read

from cadenza.data import DataError, TextConfig
from cadenza.data.errors import BadRow
from cadenza.data.text.files.fields import column_of
from cadenza.data.text.rows import Texts, text_of


def test_a_field_within_a_field():
    row = {"meta": {"body": "a", "more": {"deep": "b"}}, "text": "c"}
    assert text_of(row, "meta.body", "here") == "a"
    assert text_of(row, "meta.more.deep", "here") == "b"
    assert list(Texts([row, row], TextConfig(text_field="meta.body"))) == ["a", "a"], "of a stream"


def test_a_field_with_a_dot_in_its_name_is_preferred():
    row = {"meta.body": "mine", "meta": {"body": "other"}}
    assert text_of(row, "meta.body", "here") == "mine"
    del row["meta.body"]
    assert text_of(row, "meta.body", "here") == "other"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": 1}, "here has no 'meta.body'; it has text"),
        ({}, "here has no 'meta.body'; it has nothing"),
        ({"meta": {}}, "here has no 'meta.body'; 'meta' has nothing"),
        ({"meta": {"x": 1, "y": 2}}, "here has no 'meta.body'; 'meta' has x, y"),
        ({"meta": None}, "here has no 'meta.body'; 'meta' is of type NoneType"),
        ({"meta": "body"}, "here has no 'meta.body'; 'meta' is of type str"),
        ({"meta": [{"body": "a"}]}, "here has no 'meta.body'; 'meta' is of type list"),
        ({"meta": {"body": 3}}, "'meta.body' of here holds int, not text"),
        ({"meta": {"body": {"x": "a"}}}, "'meta.body' of here holds dict, not text"),
        ({"meta": {"body": "\ud800"}}, "'meta.body' of here holds half a character"),
    ],
)
def test_what_is_wrong_is_said(row, said):
    with pytest.raises(BadRow) as error:
        text_of(row, "meta.body", "here")
    assert str(error.value).startswith(f"data.text_field: {said}")


@pytest.mark.parametrize("field", [".", "meta.", ".body", "meta..body"])
def test_odd_names_are_fields_that_are_missing(field):
    with pytest.raises(BadRow, match="has no"):
        text_of({"meta": {"body": "a"}}, field, "here")
    assert text_of({field: "a"}, field, "here") == "a"


@pytest.mark.parametrize(
    "line",
    [
        '{"meta": {"body": "a"}, "meta": {"body": "b"}}',
        '{"meta": {"body": "a", "body": "b"}}',
    ],
)
def test_a_name_that_stands_twice_on_the_way_is_refused(tmp_path, line):
    with pytest.raises(DataError, match=r"line 1 has '(meta|body)' more than once"):
        read(tmp_path / "a.jsonl", line.encode(), text_field="meta.body")
    more = json.dumps({"meta": {"body": "a"}})[:-1] + ', "x": 1, "x": 2}'
    assert read(tmp_path / "a.jsonl", more.encode(), text_field="meta.body") == ["a"]


def test_the_column_that_is_read():
    assert column_of("text_field", "text", ["id", "text"], "x") == "text"
    assert column_of("text_field", "meta.body", ["meta", "meta.body"], "x") == "meta.body"
    assert column_of("text_field", "meta.body", ["meta"], "x") == "meta"
    with pytest.raises(DataError, match=r"^data.text_field: x has no 'body.meta'; it has meta$"):
        column_of("text_field", "body.meta", ["meta"], "x")
