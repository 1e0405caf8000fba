"""`data.on_bad_row`: an error, or left out with a line that says how many and which was the first."""

import json
import re

import pytest

from cadenza.data import DataError, TextConfig, documents
from cadenza.data.text.finite import Finite
from cadenza.data.text.rows import Texts

BAD = ['{"body": 1}', "nothing", '{"text": 5}', '{"text": "\\ud800"}']


def written(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def row(text):
    return json.dumps({"text": text})


def test_the_count_and_the_first_one_are_printed_once_a_pass_over_all_files(tmp_path, capsys):
    one = written(tmp_path / "a.jsonl", [row("a"), *BAD])
    files = [one, written(tmp_path / "b.jsonl", ["{", row("b"), row("c")])]
    cfg = TextConfig(source=files, eval_source=files[0], on_bad_row="skip")
    assert documents(cfg, train=True) == ["a", "b", "c"]
    first = f"data.text_field: {files[0]} line 2 has no 'text'; it has body"
    said = f"data.source: {files[0]}, {files[1]}: 5 of 8 rows are bad and left out; the first: {first}\n"
    assert capsys.readouterr().out == said
    assert documents(cfg, train=False) == ["a"]
    said = f"data.eval_source: {one}: 4 of 5 rows are bad and left out; the first: {first}\n"
    assert capsys.readouterr().out == said


def test_nothing_is_printed_of_good_rows_and_nothing_skipped_by_default(tmp_path, capsys):
    good = written(tmp_path / "a.jsonl", [row("a")])
    assert documents(TextConfig(source=good, on_bad_row="skip"), train=True) == ["a"]
    with pytest.raises(DataError, match=r"line 1 has no 'text'; it has body$"):
        documents(TextConfig(source=written(tmp_path / "b.jsonl", BAD)), train=True)
    assert capsys.readouterr().out == ""
    with pytest.raises(DataError, match=r"^data.on_bad_row is 'warn'; it must be error or skip$"):
        TextConfig(on_bad_row="warn")


def test_only_the_first_rank_prints(tmp_path, capsys, monkeypatch):
    from composer.utils import dist

    monkeypatch.setattr(dist, "get_global_rank", lambda: 1)
    source = written(tmp_path / "a.jsonl", [row("a"), *BAD])
    assert documents(TextConfig(source=source, on_bad_row="skip"), train=True) == ["a"]
    assert capsys.readouterr().out == ""


def test_a_source_of_bad_rows_alone_is_an_error(tmp_path):
    source = written(tmp_path / "a.jsonl", BAD)
    said = rf"^data.source: {source}: each of its 4 rows is bad; the first: data.text_field: .* has no 'text'"
    with pytest.raises(DataError, match=said):
        documents(TextConfig(source=source, on_bad_row="skip"), train=True)
    written(tmp_path / "b.jsonl", [row("b")])
    assert documents(TextConfig(source=f"{tmp_path}/*.jsonl", on_bad_row="skip"), train=True) == ["b"]


def test_a_field_that_no_row_has_is_an_error(tmp_path):
    source = written(tmp_path / "a.jsonl", [row("a")] * 3)
    with pytest.raises(DataError, match=r"each of its 3 rows is bad; .* has no 'body'; it has text$"):
        list(Finite(source, TextConfig(text_field="body", on_bad_row="skip"), "data.source"))


STREAM = [{"text": "a"}, {"body": 1}, {"text": None}, {"text": "b"}]


def test_a_stream_skips_too_and_says_so_after_each_pass(capsys):
    texts = Texts(STREAM, TextConfig(on_bad_row="skip"))
    said = "data.source: the stream: 2 of 4 rows are bad and left out; the first: data.text_field: a row of "
    for _ in range(2):
        assert list(texts) == ["a", "b"]
        assert capsys.readouterr().out == f"{said}the stream has no 'text'; it has body\n"
    with pytest.raises(DataError, match=r"^data.text_field: a row of the stream has no 'text'; it has body$"):
        list(Texts(STREAM, TextConfig()))
    with pytest.raises(DataError, match=r"^data.source: the stream: each of its 2 rows is bad; the first: "):
        list(Texts(STREAM[1:3], TextConfig(on_bad_row="skip")))


def test_a_pass_that_ends_early_says_what_was_left_out_so_far(capsys):
    rows = iter(Texts(STREAM * 2, TextConfig(on_bad_row="skip")))
    assert [next(rows), next(rows)] == ["a", "b"]
    rows.close()
    assert re.search("2 of 4 rows are bad", capsys.readouterr().out)


def test_an_error_that_is_no_bad_row_is_never_skipped(tmp_path):
    source = written(tmp_path / "a.jsonl", [row("a")])
    (tmp_path / "b.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match="is cut short or no gzip file"):
        list(Finite([source, f"{tmp_path}/b.jsonl.gz"], TextConfig(on_bad_row="skip"), "data.source"))
