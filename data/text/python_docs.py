"""`python_docs`: English text that comes with every CPython, for runs without a network."""

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}


@cache
def python_docs() -> tuple[str, ...]:
    """The topics of the language reference, and the docstrings of each module of the standard library.

    About 650 documents and 2.2 MB of text; exact numbers vary with the version of Python. A module is one
    document; it is parsed, never imported.
    """
    from pydoc_data.topics import topics

    documents = [topics[name] for name in sorted(topics)]
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if SKIPPED.isdisjoint(path.relative_to(root).parts):
            documents.append("\n\n".join(_docstrings(path)))
    return tuple(text for text in documents if text.strip())


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates, and files that are broken on purpose
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text
