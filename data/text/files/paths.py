"""The files that a source names: a file, a folder or a glob."""

import glob
import os
from collections.abc import Callable, Iterator

from cadenza.data.errors import DataError, one_line
from cadenza.data.places import home
from cadenza.data.text.files.kinds import NAMES, kind_of

HIDDEN = (".", "_")  # how names begin that a folder's reader ignores, as pyarrow's and Spark's do
SHOWN = 3  # names that an error lists


def is_local(source: str) -> bool:
    """Whether `source` means files of this machine, there or missing, rather than a data set on the Hub."""
    if kind_of(source) or glob.has_magic(source) or source.startswith((".", "/", "~")):
        return True
    return source.count("/") > 1 or os.path.exists(source)


def paths_of(source: str, key: str) -> list[str]:
    """The files of `source`, in the order of their paths.

    A folder stands for all files in it and in the folders within it. Files and folders whose names begin with
    `.` or `_` are ignored there.

    Raises:
        DataError: no such file, an empty folder, or a file of a kind that isn't read.
    """
    path = str(home(source))
    matches = [path] if os.path.lexists(path) else glob.glob(path, recursive=True)
    found: set[str] = set()
    for match in matches:
        found.update(_within(match, key) if os.path.isdir(match) else [match])
    if not found:
        problem = f"{source} holds no file" if os.path.isdir(path) else f"no file matches {source}"
        raise DataError(f"{key}: {problem}")
    _refuse_other_kinds(sorted(found), source, key)
    return sorted(found)


def each_once(names: list[str], key: str, paths: Callable[[str], list[str]]) -> list[str]:
    """The files of all `names`, of which each has `paths`.

    Raises:
        DataError: two names mean the same file.
    """
    found: list[str] = []
    read: dict[str, int] = {}  # each file, and the index of the name that it belongs to
    for index, name in enumerate(names):
        for path in paths(name):
            if (other := read.setdefault(os.path.realpath(path), index)) != index:
                both = f"by {names[other]} and by {name}"
                raise DataError(f"{key}: {path} is read twice, {both}; name it once")
            found.append(path)
    return found


def _within(folder: str, key: str) -> Iterator[str]:
    seen = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{key}: {error.filename} can't be read ({one_line(error)})") from error

    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            raise DataError(f"{key}: {here} is a link to {real}, which is read already; take the link out")
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        yield from (os.path.join(here, name) for name in names if not name.startswith(HIDDEN))


def _refuse_other_kinds(paths: list[str], source: str, key: str) -> None:
    others = [path for path in paths if not kind_of(path)]
    if not others:
        return
    named = ", ".join(others[:SHOWN]) + f" and {len(others) - SHOWN:,} more" * (len(others) > SHOWN)
    verb = "is" if len(others) == 1 else "are"
    right = "name the files to read by a glob or a list" if len(paths) > 1 else "convert it"
    raise DataError(f"{key}: {named} {verb} of no kind that is read ({NAMES}); {right}")
