"""Parquet and Arrow: nested columns, types of text, bad rows, damage."""

import pyarrow as pa
import pytest
from text_files import COMPRESSED, GOOD, columns, ipc_bytes, parquet_bytes, read

from cadenza.data import DataError

KINDS = {
    ".parquet": parquet_bytes,
    ".arrow": ipc_bytes,
    "-stream.arrow": lambda made: ipc_bytes(made, stream=True),
}


@pytest.fixture(params=KINDS)
def written(request, tmp_path):
    def written(made, **options):
        path = tmp_path / f"a{request.param}"
        return read(path, KINDS[request.param](made), **options)

    return written


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_each_type_of_text(written, kind):
    assert written(pa.table({"text": pa.array(GOOD).cast(kind)})) == GOOD


def test_nested_columns(written):
    meta = [{"body": text, "id": 1, "more": {"a": "deep"}} for text in GOOD]
    made = pa.table({"meta": meta, "text": GOOD})
    assert written(made, text_field="meta.body") == GOOD
    assert written(made, text_field="meta.more.a") == ["deep"] * 5
    assert (
        written(made.append_column("meta.body", pa.array(["mine"] * 5)), text_field="meta.body")
        == ["mine"] * 5
    )
    for field, said in (
        ("meta.none", r"row 1 has no 'meta.none'; 'meta' has body, id, more$"),
        ("meta.body.x", r"row 1 has no 'meta.body.x'; 'meta.body' is of type str$"),
        ("meta.id", r"'meta.id' of .* row 1 holds int, not text$"),
        ("body", r"has no 'body'; it has meta, text$"),
        ("none.body", r"has no 'none.body'; it has meta, text$"),
    ):
        with pytest.raises(DataError, match=rf"^data.text_field: .*{said}"):
            written(made, text_field=field)


def test_bad_rows_are_named_or_skipped(written):
    made = pa.table({"text": ["a", None, "b"], "meta": [{"x": "a"}, None, {"x": None}]})
    with pytest.raises(DataError, match=r"row 2 holds NoneType, not text$"):
        written(made)
    assert written(made, on_bad_row="skip") == ["a", "b"]
    with pytest.raises(
        DataError, match=r"row 2 (has no 'meta.x'; 'meta' is of type NoneType|holds NoneType)"
    ):
        written(made, text_field="meta.x")
    assert written(made, text_field="meta.x", on_bad_row="skip") == ["a"]


def test_a_column_that_stands_twice(written):
    made = pa.table([["a"], ["b"]], names=["text", "text"])
    with pytest.raises(DataError, match=r"^data.eval_source: .* has more than one column 'text'$"):
        written(made)


def bytes_as_text(values):
    return pa.array(values, pa.binary()).view(pa.string())


def test_a_text_of_parquet_that_is_not_utf8_is_a_bad_row(tmp_path):
    content = parquet_bytes(pa.table({"text": bytes_as_text([b"a", b"caf\xe9", b"b"])}))
    with pytest.raises(DataError, match=r"^data.eval_source: .*a.parquet row 2 is not UTF-8 \(byte 0xe9\)"):
        read(tmp_path / "a.parquet", content)
    assert read(tmp_path / "a.parquet", on_bad_row="skip") == ["a", "b"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", COMPRESSED)
@pytest.mark.parametrize("skip", ["error", "skip"])
def test_a_file_that_was_cut_is_never_skipped(tmp_path, kind, end, skip):
    whole = KINDS[kind](columns([f"document {n}" for n in range(500)]))
    for size in (0, 3, 8, len(whole) // 2, len(whole) - 9, len(whole) - 8, len(whole) - 1):
        with pytest.raises(
            DataError, match=r"^data.eval_source: .* can't be read as (parquet|arrow) after row \d+"
        ):
            read(tmp_path / f"a{kind}{end}", COMPRESSED[end](whole[:size]), on_bad_row=skip)


def test_bytes_behind_a_stream_are_noticed(tmp_path):
    content = KINDS["-stream.arrow"](columns(GOOD))
    for more in (b"\0", content):
        with pytest.raises(DataError, match="can't be read as arrow after row 5"):
            read(tmp_path / "a.arrow", content + more + b"x")


def test_offsets_that_point_out_of_a_file_are_refused(tmp_path):
    content = bytearray(ipc_bytes(pa.table({"text": ["a" * 8] * 8})))
    offsets = b"".join(n.to_bytes(4, "little") for n in range(0, 72, 8))
    at = bytes(content).index(offsets)
    content[at + 16 : at + 20] = (1 << 30).to_bytes(4, "little")
    with pytest.raises(DataError, match=r"a.arrow can't be read as arrow after row 0 \(ArrowInvalid"):
        read(tmp_path / "a.arrow", bytes(content))
