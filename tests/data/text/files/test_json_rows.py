"""JSON lists and JSON lines; and rows that aren't what they should be."""

import json
import tracemalloc

import pytest
from text_files import GOOD, lines, read

from cadenza.data import DataError, TextConfig
from cadenza.data.text.files import json_list
from cadenza.data.text.files.documents import documents_of

ROWS = [{"text": text} for text in GOOD]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=4).replace("\n", "\r\n"),
        "\ufeff \n\n\t" + json.dumps(ROWS, separators=(",", ":")) + " \n\n",
        "\n\n" + lines().decode(),
        "\ufeff" + lines().decode(),
        lines().decode().rstrip("\n"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
def test_a_list_and_lines_are_read_alike(tmp_path, content, chunk, monkeypatch):
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    assert read(tmp_path / "a.json", content.encode()) == GOOD


@pytest.mark.parametrize("skip", ["error", "skip"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"}, {"text": "b', "is no whole JSON list after row 1 (ValueError: Unterminated string"),
        ('[{"text": "a"}', "after row 1 (ValueError: it ends within the list)"),
        ('[{"text": "a"},', "after row 1 (ValueError: Expecting value)"),
        ('[{"text": "a"} {"text": "b"}]', "after row 1 (ValueError: '{' instead of a comma or ])"),
        ('[{"text": "a"}]\n{"text": "b"}\n', "after row 1 (ValueError: '{' behind the list)"),
        ('[{"text": "a"}, ]', "after row 1 (ValueError: Expecting value)"),
        ("[", "after row 0 (ValueError: Expecting value)"),
        ("[" * 100_000, "after row 0 (RecursionError: "),
    ],
)
def test_a_list_that_is_not_whole_is_never_skipped(tmp_path, content, said, skip):
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.json", content.encode(), on_bad_row=skip)
    assert f"{tmp_path}/a.json " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("content", ["[]", " [ ]\n", "", "\n \n"])
def test_nothing_in_a_file(tmp_path, content):
    with pytest.raises(DataError, match=r"holds no text$"):
        read(tmp_path / "a.json", content.encode())


BAD_ROWS = [
    "3",
    "[1]",
    "null",
    "{}",
    '{"text": 3}',
    '{"text": null}',
    '{"text": "a", "text": "b"}',
    '{"text": "\\ud83d"}',
]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_of_a_list_is_named_or_skipped(tmp_path, row):
    content = f'[{{"text": "a"}}, {row},\n{{"text": "b"}}]'.encode()
    with pytest.raises(DataError, match=r"a.json row 2 (has|holds|is)"):
        read(tmp_path / "a.json", content)
    assert read(tmp_path / "a.json", on_bad_row="skip") == ["a", "b"]


@pytest.mark.parametrize("row", [*BAD_ROWS, "{", "nothing", '{"text": "a"}{"text": "b"}', "1" * 5000])
def test_a_bad_line_is_named_or_skipped(tmp_path, row):
    content = f'{{"text": "a"}}\n{row}\n{{"text": "b"}}\n'.encode()
    for name in ("a.jsonl", "a.json"):
        with pytest.raises(DataError, match=rf"{name} line 2 (has|holds|is)"):
            read(tmp_path / name, content)
        assert read(tmp_path / name, on_bad_row="skip") == ["a", "b"]


def test_a_last_line_without_an_end_that_is_no_json_is_never_skipped(tmp_path):
    said = r"a.jsonl line 6 is not JSON .* the file ends within this line, so it may be cut short$"
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.jsonl", lines() + b'{"text": "th', on_bad_row="skip")
    assert read(tmp_path / "a.jsonl", lines() + b'{"body": 1}', on_bad_row="skip") == GOOD, "it is whole"


def test_a_bad_byte_in_a_list(tmp_path):
    content = b'[{"text": "a", "id": "caf\xe9"}, {"text": "b"}]'
    with pytest.raises(DataError, match=r"a.json row 1 is not UTF-8 \(byte 0xe9\)"):
        read(tmp_path / "a.json", content)
    assert read(tmp_path / "a.json", on_bad_row="skip") == ["b"]


def test_a_long_list_is_not_held_in_memory(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a line of some text"}] * 100_000))
    tracemalloc.start()
    number = sum(1 for _ in documents_of(f"{tmp_path}/a.json", TextConfig(), "data.source"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 100_000
    assert peak < 700_000, "bytes, of a file of 3,300,000"
