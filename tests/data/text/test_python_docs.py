"""`python_docs` on a small standard library: which text is taken, which is skipped, and how it looks."""

import sys
import sysconfig
from types import SimpleNamespace

import pytest

from cadenza.data import python_docs
from cadenza.data.text import python_docs as module

MODULE = '''"""Top
    line.

    More.
"""
"a string that is no docstring"
def first():
    """Of a function."""
    number = 1
class Second:
    """Of a class."""
    async def third(self):
        """Of a coroutine."""
    def silent(self):
        return "nothing"
    def blank(self):
        """   """
    class Deeper:
        """Of a class within."""
'''
WRITTEN = {
    "b.py": MODULE,
    "a/c.py": '"""Deep."""',
    "d.py": "number = 1",
    "blank.py": '"""   """',
    "broken.py": "def (:",
    "nulls.py": '"""Text."""\0',
}
SKIPPED = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where the text is kept."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CADENZA_CACHE", str(folder))
    return folder


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of these files, and two topics; what `python_docs` makes of them."""
    for name, text in WRITTEN.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in SKIPPED:
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / "e.py").write_text('"""Not this."""')
    paths = {"stdlib": str(tmp_path)}
    monkeypatch.setattr(sysconfig, "get_path", lambda name: paths[name])
    topics = SimpleNamespace(topics={"with": "A topic.", "assert": "Another.", "empty": " \n"})
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", topics)
    return tmp_path


def test_topics_come_first_then_docstrings_by_path(library):
    """A module's own docstring, then level by level; no module is imported, and none that is broken read."""
    whole = "Top\nline.\n\nMore.\n\nOf a function.\n\nOf a class.\n\nOf a coroutine.\n\nOf a class within."
    assert python_docs.__wrapped__() == ("Another.", "A topic.", "Deep.", whole)


def kept(folder):
    return sorted((folder / "python_docs").iterdir())


def test_the_text_is_kept_until_a_file_changes(library, cache, monkeypatch):
    first = python_docs.__wrapped__()
    (path,) = kept(cache)
    with monkeypatch.context() as patch:
        patch.setattr(module.ast, "parse", None)  # a call would raise
        assert python_docs.__wrapped__() == first
    (library / "b.py").write_text('"""Another text."""')
    assert python_docs.__wrapped__() == ("Another.", "A topic.", "Deep.", "Another text.")
    (library / "new.py").write_text('"""New."""')
    assert python_docs.__wrapped__()[-1] == "New."
    monkeypatch.setattr(sys, "version", "3.99")
    python_docs.__wrapped__()
    assert len(kept(cache)) == 4
    assert path in kept(cache)


@pytest.mark.usefixtures("library")
def test_what_is_kept_by_half_is_read_anew(cache):
    first = python_docs.__wrapped__()
    (path,) = kept(cache)
    whole = path.read_text()
    path.write_text(whole[:-5])
    assert python_docs.__wrapped__() == first
    assert path.read_text() == whole
    assert kept(cache) == [path]


@pytest.mark.usefixtures("library")
def test_without_a_place_to_keep_it_the_text_is_read_and_a_line_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"python_docs is read anew at each start: .*file/python_docs"):
        assert len(python_docs.__wrapped__()) == 4
