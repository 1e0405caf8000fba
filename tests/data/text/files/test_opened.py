"""Every kind of file in every compression; and damage, which is never taken for the end of a file."""

import gzip
import lzma
import shutil
import subprocess

import pytest
from text_files import COMPRESSED, GOOD, KINDS, lines, read

from cadenza.data import DataError
from cadenza.data.text.files import opened

LONG = lines(f"document {n} " * 20 for n in range(3000))


@pytest.mark.parametrize("end", COMPRESSED)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upper", [False, True])
def test_each_kind_in_each_compression_gives_the_same_texts(tmp_path, kind, end, upper):
    name = f"a{kind}{end}"
    content = COMPRESSED[end](KINDS[kind](GOOD))
    assert read(tmp_path / (name.upper() if upper else name), content) == GOOD


@pytest.mark.parametrize("end", COMPRESSED)
@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_of_each_kind(tmp_path, kind, end):
    """More than a buffer, a chunk and a batch hold; some texts are longer than those by themselves."""
    texts = [f"{n} \u00e9\u4e2d" * (1 if n % 500 else 40_000) for n in range(1, 1600)]
    assert read(tmp_path / f"a{kind}{end}", COMPRESSED[end](KINDS[kind](texts))) == texts


@pytest.mark.parametrize("end", COMPRESSED)
def test_text_in_each_compression(tmp_path, end):
    assert read(tmp_path / f"a.txt{end}", COMPRESSED[end](b"one\r\n\r\ntwo\n")) == ["one\n\ntwo\n"]


@pytest.mark.parametrize("end", [end for end in COMPRESSED if end])
def test_streams_that_were_joined_are_read_to_the_last(tmp_path, end):
    compress = COMPRESSED[end]
    parts = [compress(LONG[:1]), compress(b""), compress(LONG[1:40_000]), compress(LONG[40_000:])]
    assert len(read(tmp_path / f"a.jsonl{end}", b"".join(parts))) == 3000


def damaged(content, other):
    """Each form of damage, and what is left of the file."""
    half = len(content) // 2
    yield "empty", b""
    yield "cut", content[:half]
    yield "cut by a byte", content[:-1]
    yield "never compressed", LONG
    yield "garbage behind", content + b"garbage"
    yield "another stream is cut", content + other[: len(other) // 2]
    yield "another stream has a bad start", content + b"\x01" + other[1:]
    yield "header alone", content[:6]


@pytest.mark.parametrize("end", [end for end in COMPRESSED if end])
@pytest.mark.parametrize("skip", ["error", "skip"])
def test_damage_is_an_error_whatever_the_bad_rows(tmp_path, end, skip):
    compress = COMPRESSED[end]
    for what, content in damaged(compress(LONG), compress(lines())):
        name = {"gz": "gzip", "zst": "zstd"}.get(end[1:], end[1:])
        said = rf"^data.eval_source: .*/a.jsonl{end} is cut short or no {name} file after line \d+ \("
        with pytest.raises(DataError, match=said):
            print(what, len(read(tmp_path / f"a.jsonl{end}", content, on_bad_row=skip)))


@pytest.mark.parametrize("end", [".gz", ".bz2", ".xz"])
def test_a_flipped_byte_is_noticed(tmp_path, end):
    """In .zst it is if the file has checksums, which are optional there."""
    content = bytearray(COMPRESSED[end](LONG))
    content[len(content) // 2] ^= 0x55
    with pytest.raises(DataError, match="is cut short or no"):
        read(tmp_path / f"a.jsonl{end}", bytes(content), on_bad_row="skip")


def test_padding_between_streams_of_xz(tmp_path):
    one, two = (lzma.compress(part) for part in (LONG[:9000], LONG[9000:]))
    assert len(read(tmp_path / "a.jsonl.xz", one + b"\0" * 70_000 + two + b"\0" * 8)) == 3000
    with pytest.raises(DataError, match="is cut short or no xz file"):
        read(tmp_path / "a.jsonl.xz", one + b"\0" * 3)


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd")
@pytest.mark.parametrize("option", ["-1", "-19", "--no-check", "--no-content-size"])
def test_what_zstd_writes(tmp_path, option):
    (tmp_path / "a.jsonl").write_bytes(LONG)
    subprocess.run(["zstd", "-q", option, "a.jsonl"], cwd=tmp_path, check=True)
    assert len(read(tmp_path / "a.jsonl.zst")) == 3000


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs the program zstd")
def test_a_window_that_is_too_large_is_named(tmp_path):
    content = subprocess.run(["zstd", "-q", "--long=28"], input=LONG, capture_output=True, check=True).stdout
    with pytest.raises(DataError, match=r"a.jsonl.zst has a window above 128 MB; compress it anew, without"):
        read(tmp_path / "a.jsonl.zst", content)


def test_a_disk_error_is_not_taken_for_a_damaged_file(tmp_path, monkeypatch):
    def fail(path, encoding, where, newline, watch):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(opened, "decoded", fail)
    monkeypatch.setattr("cadenza.data.text.files.place.decoded", fail)
    with pytest.raises(DataError, match=r"a.jsonl.gz can't be read \(OSError: .*Input/output error\)$"):
        read(tmp_path / "a.jsonl.gz", gzip.compress(LONG))
