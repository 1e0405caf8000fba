"""Encodings: stated in the recipe, checked against the mark of the file, and never guessed."""

import re

import pytest
from text_files import COMPRESSED, lines, read, table

from cadenza.data import DataError, TextConfig

TEXTS = ["caf\u00e9 one", "na\u00efve two", "\u00fcber three"]
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
NARROW = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "ISO-8859-15", "cp037", "mac_roman"]


def forms(encoding):
    """Each kind of text file of `TEXTS`, in this encoding."""
    json_lines = "".join(f'{{"text": "{text}"}}\n' for text in TEXTS)
    listed = '[{"text": "' + '"},\n{"text": "'.join(TEXTS) + '"}]'
    for kind, content in (
        (".jsonl", json_lines),
        (".json", listed),
        (".csv", table(TEXTS, ",").decode()),
        (".tsv", table(TEXTS, "\t").decode()),
        (".txt", "\n".join(TEXTS) + "\n"),
    ):
        yield kind, content.replace("\n", "\r\n").encode(encoding)


@pytest.mark.parametrize("encoding", [*WIDE, *NARROW])
def test_stated_encodings(tmp_path, encoding):
    for kind, content in forms(encoding):
        for end in ("", ".xz"):
            path = tmp_path / f"a{kind}{end}"
            found = read(path, COMPRESSED[end](content), encoding=encoding, split_text="line")
            assert found == TEXTS, kind


@pytest.mark.parametrize(
    ("encoding", "text"), [("gbk", "\u4f60\u597d"), ("shift_jis", "\u30bd\u8868"), ("koi8-r", "\u044f\u0447")]
)
def test_encodings_of_other_scripts(tmp_path, encoding, text):
    """In Shift-JIS a byte of a character may be that of a backslash."""
    assert read(tmp_path / "a.txt", f"{text}\n{text}".encode(encoding), encoding=encoding) == [
        f"{text}\n{text}"
    ]


@pytest.mark.parametrize("name", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_mark_of_this_encoding_is_left_out(tmp_path, name):
    for kind, content in forms(name):
        marked = "\ufeff".encode(name) + content
        for encoding in {name, name[:6] if name[-1] != "8" else name}:
            assert read(tmp_path / f"a{kind}", marked, encoding=encoding, split_text="line") == TEXTS


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-16-be", "utf-32-le"])
def test_a_mark_of_another_encoding_is_an_error(tmp_path, encoding):
    content = "\ufeffone".encode("utf-16-le")
    said = (
        f"begins with the byte order mark of utf-16-le, but data.encoding is {encoding}; set data.encoding="
    )
    with pytest.raises(DataError, match=f"^data.eval_source: .*a.txt {said}utf-16-le$"):
        read(tmp_path / "a.txt", content, encoding=encoding, on_bad_row="skip")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_without_a_mark_the_order_of_bytes_is_not_guessed(tmp_path, encoding):
    right = f"set data.encoding={encoding}-le or {encoding}-be"
    with pytest.raises(DataError, match=f"has no byte order mark, which {encoding} needs; {right}$"):
        read(tmp_path / "a.txt", "one".encode(f"{encoding}-le"), encoding=encoding)


BAD = {
    "utf-8": b"\xe9",
    "utf-16-le": b"\x00\xdc",
    "utf-16-be": b"\xdc\x00",
    "utf-32-le": b"\xff\xff\xff\xff",
    "cp1252": b"\x81",
    "gbk": b"\xff",
}


@pytest.mark.parametrize("encoding", BAD)
@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".txt"])
def test_a_byte_that_does_not_fit_is_named_with_its_line_and_skipped_alone(tmp_path, encoding, kind):
    head, row = {".jsonl": ("", '{"text": "%s"}\n'), ".csv": ("text\n", '"%s"\n'), ".txt": ("", "%s\n")}[kind]
    parts = [head + row % "one", row % "two @ two", row % "three"]
    content = "".join(parts).encode(encoding).replace("@".encode(encoding), BAD[encoding])
    path, line = tmp_path / f"a{kind}", 2 + bool(head)
    byte = next(byte for byte in BAD[encoding] if encoding != "utf-16-le" or byte == 0)
    said = f"{path} line {line} is not {encoding.upper()} (byte 0x{byte:02x})"
    with pytest.raises(DataError, match=f"^data.eval_source: {re.escape(said)}; convert it, or set"):
        read(path, content, encoding=encoding, split_text="line")
    assert read(path, encoding=encoding, split_text="line", on_bad_row="skip") == ["one", "three"]


@pytest.mark.parametrize("kind", [".jsonl", ".csv", ".txt"])
def test_a_character_that_is_cut_off_at_the_end_is_never_skipped(tmp_path, kind):
    start = {".jsonl": lines(), ".csv": b"text\none\n", ".txt": b"one\n"}[kind]
    for tail in (b"caf\xc3", b"caf\xe2\x82"):
        with pytest.raises(
            DataError, match=r"is not UTF-8 .* the file ends within this line, so it may be cut"
        ):
            read(tmp_path / f"a{kind}", start + tail, on_bad_row="skip", split_text="line")


@pytest.mark.parametrize("name", ["latin9x", "", "hex", "rot13", "undefined", "utf-8\n", "a\0b"])
def test_an_unknown_encoding_is_refused(name):
    said = (
        f"^data.encoding is {re.escape(repr(name))}; it must be an encoding that Python knows, such as utf-8,"
    )
    with pytest.raises(DataError, match=said):
        TextConfig(encoding=name)
