"""Files of text as they lie about: read as they stand, or refused in one line with file and line or row."""

import gzip
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from cadenza.data import DataError, TextConfig, documents

GOOD = [f"the cat {n} sat" for n in range(5)]
LINES = "".join(json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(GOOD)).encode()
CAFE = '{"text": "caf\u00e9"}\n'


def read(tmp_path, name, content, field="text"):
    (tmp_path / name).write_bytes(content)
    cfg = TextConfig(eval_source=str(tmp_path / name), text_field=field)
    return documents(cfg, train=False)


def table(tmp_path, *columns):
    path, values = tmp_path / "made.parquet", [values for _, values in columns]
    made = pa.table(values, names=[name for name, _ in columns])
    parquet.write_table(made, path, compression="none", use_dictionary=False, write_page_checksum=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("joined.jsonl", LINES.replace(b'{"text": "the cat 3', b'\xef\xbb\xbf{"text": "the cat 3')),
        ("blank.jsonl", b"\n \t\n" + LINES.replace(b"\n", b"\n\n") + b"\r\n\n"),
        ("windows.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("open.jsonl", LINES.rstrip(b"\n")),
        ("c4-train.00000-of-01024.json.gz", gzip.compress(LINES, mtime=0)),
        ("two.jsonl.gz", gzip.compress(LINES[:33], mtime=0) + gzip.compress(LINES[33:], mtime=0)),
        ("bom.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + LINES, mtime=0)),
    ],
)
def test_harmless_forms_of_json_lines_are_read_as_they_are(tmp_path, name, content):
    assert read(tmp_path, name, content) == GOOD


def test_plain_text_has_no_mark_and_one_kind_of_line_ends(tmp_path):
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n\xef\xbb\xbf") == [
        "one\ntwo\nthree\n\ufeff"
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            LINES + b'{"text": "half \\ud83d"}\n',
            "line 6 holds half a character (0xd83d, a lone surrogate, at 6)",
        ),
        (
            "a.jsonl",
            b"\n" + LINES + CAFE.encode("latin-1"),
            "line 7 is not UTF-8 (byte 0xe9); convert it, or set data.encoding",
        ),
        (
            "a.jsonl",
            CAFE.encode("utf-16"),
            "begins with the byte order mark of utf-16-le, but data.encoding is utf-8",
        ),
        ("a.jsonl", LINES + b"\0" * 100, "line 6 is not JSON (JSONDecodeError: "),
        ("a.jsonl", LINES + b"\n[1]\n", "line 7 is of type list; it must be an object with fields"),
        (
            "a.jsonl",
            LINES + b'{"text": "a", "n": ' + b"1" * 5000 + b"}",
            "line 6 is not JSON (ValueError: Exceeds",
        ),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON (RecursionError: "),
        ("a.jsonl", LINES + b'{"text": "a", "text": "b"}', "line 6 has 'text' more than once"),
        ("a.jsonl", LINES + b'{"id": 1}', "line 6 has no 'text'; it has id"),
        ("a.jsonl", LINES + b"{}", "line 6 has no 'text'; it has nothing"),
        ("a.jsonl", LINES + b'{"text": 3}', "line 6 holds int, not text"),
        ("a.jsonl", LINES + b'{"text": null}', "line 6 holds NoneType, not text"),
        ("a.jsonl", b"\n \n", "holds no text"),
        ("a.jsonl", b'{"text": " "}\n', "holds no text"),
        (
            "a.jsonl.gz",
            gzip.compress(LINES, mtime=0)[:-4],
            "is cut short or no gzip file after line 5 (EOFError: ",
        ),
        ("a.jsonl.gz", b"", "is cut short or no gzip file after line 0 (EOFError: no bytes at all)"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "holds no text"),
        ("a.jsonl.gz", LINES, "is cut short or no gzip file after line 0 (BadGzipFile: Not a gzipped file"),
        (
            "a.json.gz",
            gzip.compress(LINES, mtime=0)[:12] + b"\xff" * 50,
            "is cut short or no gzip file after line 0 (",
        ),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"one\n\ncaf\xe9", "line 3 is not UTF-8 (byte 0xe9)"),
        ("a.txt", "one\ntwo".encode("utf-16-le"), "line 1 holds a NUL byte: it is binary, or UTF-16"),
        ("a.parquet", b"", "can't be read as parquet after row 0 ("),
        ("a.parquet", b"PAR1?", "can't be read as parquet after row 0 ("),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value[:40],
)
def test_what_can_not_be_read_is_named_in_one_line(tmp_path, name, content, message):
    with pytest.raises(DataError) as error:
        read(tmp_path, name, content)
    assert str(error.value).startswith("data.")
    assert f"{tmp_path / name} {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_that_stands_twice_elsewhere_is_left_alone(tmp_path):
    line = b'{"text": "a", "id": 1, "id": 2, "meta": {"text": "b", "text": "c"}}\n'
    assert read(tmp_path, "a.jsonl", line) == ["a"]


def test_parquet_gives_its_text_and_names_the_row(tmp_path):
    content = table(tmp_path, ("id", [1, 2]), ("text", ["a", "b"]))
    assert read(tmp_path, "a.parquet", content) == ["a", "b"]
    for values, kind in (([1, 2], "int"), (["a", None], "NoneType"), ([b"a", b"b"], "bytes")):
        row = 2 if values[0] == "a" else 1
        with pytest.raises(
            DataError, match=rf"^data.text_field: 'text' of .*a.parquet row {row} holds {kind}, not"
        ):
            read(tmp_path, "a.parquet", table(tmp_path, ("text", values)))


def test_parquet_has_the_column_once(tmp_path):
    with pytest.raises(DataError, match=r"^data.text_field: .*a.parquet has no 'text'; it has id, body$"):
        read(tmp_path, "a.parquet", table(tmp_path, ("id", [1]), ("body", ["a"])))
    with pytest.raises(DataError, match=r"^data.eval_source: .*a.parquet has more than one column 'text'$"):
        read(tmp_path, "a.parquet", table(tmp_path, ("text", ["a"]), ("text", ["b"])))


@pytest.mark.parametrize("damage", [slice(4, 60), slice(-60, -8)])
def test_damaged_parquet_is_refused(tmp_path, damage):
    content = bytearray(table(tmp_path, ("text", GOOD)))
    content[damage] = b"\xff" * len(content[damage])
    with pytest.raises(
        DataError, match=r"^data.eval_source: .*a.parquet can't be read as parquet after row 0 \("
    ):
        read(tmp_path, "a.parquet", bytes(content))


def test_parquet_with_checksums_is_held_to_them(tmp_path):
    content = table(tmp_path, ("text", GOOD))
    assert content.count(b"the cat 3 sat") == 1
    with pytest.raises(DataError, match=r"can't be read as parquet after row 0 \(.*CRC"):
        read(tmp_path, "a.parquet", content.replace(b"the cat 3 sat", b"the cat 8 sat"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_what_is_no_file_is_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    message = rf"^data.eval_source: {re.escape(str(tmp_path / name))} can't be read"
    with pytest.raises(DataError, match=message):
        documents(TextConfig(eval_source=str(tmp_path / name)), train=False)


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "a.jsonl").symlink_to("gone")
    with pytest.raises(DataError, match=r"a.jsonl can't be read \(FileNotFoundError: "):
        documents(TextConfig(eval_source=str(tmp_path / "*.jsonl")), train=False)


def test_one_bad_file_among_many_is_named(tmp_path):
    (tmp_path / "1.jsonl").write_bytes(LINES)
    with pytest.raises(DataError, match=r"2.jsonl line 1 is not UTF-8"):
        read(tmp_path, "2.jsonl", CAFE.encode("latin-1"))
    (tmp_path / "2.jsonl").write_bytes(b"")
    assert documents(TextConfig(eval_source=str(tmp_path / "*.jsonl")), train=False) == GOOD
