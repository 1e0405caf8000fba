"""Tables with commas and tabs: quoting, line ends, and rows that don't fit the first line."""

import pytest
from text_files import GOOD, read, table

from cadenza.data import DataError

LONG = "a word, " * 40_000  # longer than the csv library's own limit


@pytest.mark.parametrize(("end", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_harmless_forms(tmp_path, end, mark):
    for content in (
        b"\xef\xbb\xbf" + table(GOOD, mark),
        table(GOOD, mark).replace(b"\n", b"\r\n"),
        table(GOOD, mark).replace(b"\n", b"\r"),
        b"\n \n" + table(GOOD, mark).replace(b"\n", b"\n\n"),
        table(GOOD, mark).rstrip(b"\n"),
    ):
        assert read(tmp_path / f"a{end}", content) == GOOD
    assert read(tmp_path / f"a{end}", b'text\none\n\n"""two"" a"\nthree') == ["one", '"two" a', "three"]


def test_text_of_many_lines_quotes_and_any_length(tmp_path):
    texts = ["one\ntwo\n\nthree", 'say "hi", then', LONG, "", "  "]
    assert read(tmp_path / "a.csv", table(texts, ",")) == texts
    assert read(tmp_path / "a.csv", table(texts, ",").replace(b"\n", b"\r\n")) == texts


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,body\n1,a\n", "has no 'text'; it has id, body"),
        (b"id;text\n1;a\n", "has no 'text'; it has id;text"),
        (b"text,text\na,b\n", "has more than one column 'text'"),
        (b"id,text\xe9\n1,a\n", "line 1 is not UTF-8 (byte 0xe9)"),
        (
            b'id,text\n1,a\n2,"b\n3,c\n4,d\n',
            "line 3 opens a quote that isn't closed before the end of the file",
        ),
        (b"id,text\n1,a\n2", "line 3 has 1 cells; the first line has 2; the file ends within this line"),
        (b"id,text\n", "holds no text"),
        (b"", "holds no text"),
    ],
)
@pytest.mark.parametrize("skip", ["error", "skip"])
def test_what_is_never_skipped(tmp_path, content, said, skip):
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv", content, on_bad_row=skip)
    assert f"{tmp_path}/a.csv {said}" in str(error.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"2", "has 1 cells; the first line has 2"),
        (b"2,b,c", "has 3 cells; the first line has 2"),
        (b'2,"b" c', "isn't quoted as a cell is ("),
        (b"2,b\xff", "is not UTF-8 (byte 0xff)"),
        (b"\xff,b", "is not UTF-8 (byte 0xff)"),
        (b"2,b\0", "holds a NUL byte"),
    ],
)
def test_a_bad_row_is_named_by_its_line_or_skipped(tmp_path, row, said):
    content = b'id,text\n1,"a\nb"\n' + row + b"\n3,c\n"
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv", content)
    assert f"{tmp_path}/a.csv line 4 {said}" in str(error.value)
    assert read(tmp_path / "a.csv", on_bad_row="skip") == ["a\nb", "c"]


def test_a_bad_byte_within_a_quoted_cell_takes_the_whole_row(tmp_path):
    content = b'id,text\n1,"a\nb\xffb\n2,tail"\n3,c\n'
    with pytest.raises(DataError, match=r"a.csv line 3 is not UTF-8"):
        read(tmp_path / "a.csv", content)
    assert read(tmp_path / "a.csv", on_bad_row="skip") == ["c"]


def test_a_column_may_have_a_dot_in_its_name(tmp_path):
    assert read(tmp_path / "a.csv", b"meta.body,meta\na,b\n", text_field="meta.body") == ["a"]
    with pytest.raises(DataError, match=r"has no 'meta.body'; it has meta$"):
        read(tmp_path / "a.csv", b"meta\nb\n", text_field="meta.body")
