"""What a source names: a file, a folder, a glob, or a list of them; and the names that mean the Hub."""

import os

import pytest
from text_files import lines, read

from cadenza.data import DataError, TextConfig, documents, hub
from cadenza.data.text.sources import is_finite


@pytest.fixture
def corpus(tmp_path):
    """Four files in two folders, each with its own name as its text, and what is ignored beside them."""
    for name in ("b.txt", "a/z.txt", "a/C.TXT", "c.jsonl.gz.txt"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    for name in (".git/x.txt", "_SUCCESS", ".hidden.txt", "a/.b.txt.crc", "_old/y.txt"):
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ignored")
    return tmp_path / "corpus"


ALL = ["a/C.TXT", "a/z.txt", "b.txt", "c.jsonl.gz.txt"]


def test_a_folder_is_all_files_in_it_in_the_order_of_their_paths(corpus):
    assert read(corpus) == read(f"{corpus}/") == ALL
    found = read(f"{corpus}/**/*.[tT][xX][tT]")
    assert [text for text in found if text != "ignored"] == ALL, "a glob gives the same order"
    assert read(f"{corpus}/a/..") == ALL
    assert read(f"{corpus}/_old") == ["ignored"], "named itself, it isn't ignored"


def test_a_folder_that_a_glob_matches_is_read_like_a_folder(corpus):
    assert read(corpus.parent / "cor*") == ALL
    assert read(f"{corpus}/[!_]*") == ALL
    (corpus / "_SUCCESS").unlink()
    assert sorted(read(f"{corpus}/**")) == [*ALL, "ignored"], "each file once"


def test_a_list_is_read_in_its_own_order(corpus):
    names = [f"{corpus}/b.txt", f"{corpus}/a", f"{corpus}/c*"]
    cfg = TextConfig(source=names, eval_source=names[:1])
    assert documents(cfg, train=True) == ["b.txt", "a/C.TXT", "a/z.txt", "c.jsonl.gz.txt"]
    assert documents(cfg, train=False) == ["b.txt"]


def test_a_list_may_hold_python_docs_but_nothing_of_the_hub(corpus, monkeypatch):
    monkeypatch.setattr("cadenza.data.text.python_docs.python_docs", lambda: ("docs",))
    monkeypatch.setattr(hub, "reachable", lambda: False)
    assert documents(TextConfig(eval_source=["python_docs", f"{corpus}/b.txt"]), False) == ["docs", "b.txt"]
    with pytest.raises(
        DataError, match=r"^data.source: some/set is neither python_docs nor a file, a folder"
    ):
        documents(TextConfig(source=[f"{corpus}/b.txt", "some/set"]), train=True)


@pytest.mark.parametrize("twice", [["b.txt", "b.txt"], ["", "b.txt"], ["a", "a/z.txt"], ["link", "b.txt"]])
def test_a_file_that_two_names_mean_is_refused(corpus, twice):
    (corpus.parent / "link").symlink_to(corpus)
    names = [str(corpus.parent / "link" if name == "link" else corpus / name) for name in twice]
    said = rf"^data.source: .* is read twice, by {names[0]} and by {names[1]}; name it once$"
    with pytest.raises(DataError, match=said):
        documents(TextConfig(source=names), train=True)


@pytest.mark.parametrize("key", ["source", "eval_source"])
def test_an_empty_list_and_an_empty_name_are_refused(key):
    with pytest.raises(DataError, match=rf"^data.{key} is \[\]; it must name a file, a folder or a glob$"):
        TextConfig(**{key: []})
    with pytest.raises(DataError, match=rf"^data.{key}\[1\] is ' '; it must be a text that isn't empty$"):
        TextConfig(**{key: ["a.txt", " "]})


def test_files_of_other_kinds_are_named(corpus):
    for number in range(5):
        (corpus / f"d{number}.docx").write_text("x")
    docx = [str(corpus / f"d{number}.docx") for number in range(5)]
    said = f"data.eval_source: {docx[0]}, {docx[1]}, {docx[2]} and 2 more are of no kind that is read (.txt "
    for source in (corpus, f"{corpus}/*", f"{corpus}/**"):
        with pytest.raises(DataError) as error:
            read(source)
        assert ("_SUCCESS" in str(error.value)) == ("*" in str(source)), "ignored in folders alone"
        assert str(error.value).endswith("; name the files to read by a glob or a list")
    with pytest.raises(DataError) as error:
        read(corpus)
    assert str(error.value).startswith(said)
    with pytest.raises(DataError, match=r"d1.docx is of no kind that is read .*; convert it$"):
        read(docx[1])


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "empty/within").mkdir(parents=True)
    for source, said in (
        ("empty", "holds no file"),
        ("none.txt", "no file matches"),
        ("none", "no file matches"),
        ("*.csv", "no file matches"),
        ("none/*/x.jsonl.zst", "no file matches"),
    ):
        with pytest.raises(DataError, match=rf"^data.eval_source: .*{said}"):
            read(tmp_path / source)


def test_a_file_whose_name_looks_like_a_glob(tmp_path):
    assert read(tmp_path / "a[1]*.txt", b"itself") == ["itself"]
    (tmp_path / "a1.txt").write_text("another")
    assert read(tmp_path / "a[1]*.txt") == ["itself"]


def test_a_linked_folder_is_read_and_a_circle_refused(tmp_path):
    read(tmp_path / "far/a.txt", b"far")
    (tmp_path / "near").mkdir()
    (tmp_path / "near/link").symlink_to(tmp_path / "far")
    assert read(tmp_path / "near") == ["far"]
    (tmp_path / "far/back").symlink_to(tmp_path / "near")
    with pytest.raises(DataError, match=r"^data.eval_source: .* is a link to .*near, which is read already"):
        read(tmp_path / "near")


def test_a_folder_that_can_not_be_listed_is_an_error(corpus, monkeypatch):
    listed = os.scandir

    def scandir(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"corpus/a can't be read \(PermissionError: "):
        read(corpus)


def test_what_means_the_hub_and_what_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("c4", "mds", "wikitext", "some/set", "some/set.v1"):
        assert not is_finite(name), name
    for name in ("python_docs", "a.txt", "A.JSONL.GZ", "./wikitext", "/x", "~/x", "a/b/c", "some/*", ["c4"]):
        assert is_finite(name), name
    for name in ("c4", "mds", "wikitext", "some/set"):
        read(tmp_path / name / "a.jsonl", lines())
    assert [is_finite(name) for name in ("c4", "mds", "wikitext", "some/set")] == [False, False, True, True]
