"""Plain text: what a document is, and how much of a file is in memory."""

import tracemalloc

import pytest
from text_files import read

from cadenza.data import DataError, TextConfig

CONTENT = b"\xef\xbb\xbf\r\n  one\r\n two\t\r\n \t\r\n\r\nthree\rfour\n\n\n\n"


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", ["\n  one\n two\t\n \t\n\nthree\nfour\n\n\n\n"]),
        ("paragraph", ["  one\n two\t", "three\nfour"]),
        ("line", ["  one", " two\t", "three", "four"]),
    ],
)
def test_what_a_document_is(tmp_path, split, expected):
    assert read(tmp_path / "a.txt", CONTENT, split_text=split) == expected
    assert read(tmp_path / "a.txt", CONTENT.rstrip(), split_text=split) == (
        expected if split != "file" else [expected[0].rstrip()]
    )


def test_only_a_line_feed_and_a_carriage_return_end_a_line(tmp_path):
    text = "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g"
    for split in ("file", "paragraph", "line"):
        assert read(tmp_path / "a.txt", text.encode(), split_text=split) == [text]


def test_splitting_is_of_text_files_alone(tmp_path):
    assert read(tmp_path / "a.jsonl", b'{"text": "a\\n\\nb"}\n', split_text="line") == ["a\n\nb"]
    with pytest.raises(DataError, match=r"^data.split_text is 'page'; it must be file, paragraph or line$"):
        TextConfig(split_text="page")


@pytest.mark.parametrize(("split", "line"), [("file", 5), ("paragraph", 5), ("line", 5)])
@pytest.mark.parametrize(
    ("bad", "said"),
    [(b"\0", "holds a NUL byte: it is binary, or UTF-16"), (b"\xff", "is not UTF-8 .byte 0xff")],
)
def test_the_line_of_what_is_wrong(tmp_path, split, line, bad, said):
    content = b"one\n\n\nthree\nfo" + bad + b"ur\n\nfive\n"
    with pytest.raises(DataError, match=rf"a.txt line {line} {said}"):
        read(tmp_path / "a.txt", content, split_text=split)
    rest = {"paragraph": ["one", "five"], "line": ["one", "three", "five"]}
    if split in rest:
        assert read(tmp_path / "a.txt", split_text=split, on_bad_row="skip") == rest[split]
        return
    (tmp_path / "b.txt").write_text("good")
    assert read(tmp_path / "*.txt", split_text=split, on_bad_row="skip") == ["good"], (
        "the whole file is left out"
    )


@pytest.mark.parametrize("split", ["line", "paragraph"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_large_file_is_not_held_in_memory(tmp_path, split, end):
    from text_files import COMPRESSED

    from cadenza.data.text.files.documents import documents_of

    path = tmp_path / f"a.txt{end}"
    path.write_bytes(COMPRESSED[end](b"a line of some text\n\n" * 200_000))
    tracemalloc.start()
    number = sum(1 for _ in documents_of(str(path), TextConfig(split_text=split), "data.source"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 200_000
    assert peak < 400_000, "bytes, of a file of 4,200,000"
