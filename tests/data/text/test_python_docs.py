"""`python_docs` on a small standard library: which text is taken, which is skipped, and how it looks."""

import sys
import sysconfig
from types import SimpleNamespace

import pytest

from cadenza.data import python_docs

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
