"""`python_docs`: English text that comes with every CPython, for runs without a network."""

import ast
import hashlib
import json
import os
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cadenza.data.places import cache_folder

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
FORMAT = 1  # raise it when other text is taken from the same files: what is kept is then read anew


@cache
def python_docs() -> tuple[str, ...]:
    """The topics of the language reference, and the docstrings of each module of the standard library.

    About 650 documents and 2.2 MB of text; exact numbers vary with the version of Python. A module is one
    document; it is parsed, never imported. The text is kept under `$CADENZA_CACHE`, else `~/.cache/cadenza`,
    since parsing takes seconds, until a file of the standard library changes.
    """
    from pydoc_data.topics import topics

    kept = cache_folder() / "python_docs" / f"{digest()}.json"
    if (found := _kept(kept)) is not None:
        return found
    documents = [topics[name] for name in sorted(topics)]
    documents += ["\n\n".join(_docstrings(path)) for path in _modules()]
    texts = tuple(text for text in documents if text.strip())
    _keep(texts, kept)
    return texts


def _modules() -> list[Path]:
    """The modules of the standard library, in the order of their paths."""
    found = []
    for folder, within, files in os.walk(sysconfig.get_path("stdlib")):
        within[:] = [name for name in within if name not in SKIPPED]
        found += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(found)


def digest() -> str:
    """A hash of what the text depends on: the version of Python, the topics, the files' sizes and times."""
    from pydoc_data.topics import topics

    digest = hashlib.sha256(f"{FORMAT} {sys.version} {sorted(topics.items())}".encode())
    for path in _modules():
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _kept(path: Path) -> tuple[str, ...] | None:
    try:
        return tuple(json.loads(path.read_text()))
    except (OSError, ValueError):  # not kept yet, or not whole
        return None


def _keep(texts: tuple[str, ...], path: Path) -> None:
    """Save whole or not at all, so that another process never reads half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            json.dump(texts, file)
        os.replace(file.name, path)
    except OSError as error:
        warnings.warn(f"python_docs is read anew at each start: {path}: {error.strerror}", stacklevel=3)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates, and files that are broken on purpose
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text
