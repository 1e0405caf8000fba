"""Plain text: one document a file, a paragraph or a line."""

from collections.abc import Callable, Iterable, Iterator

from cadenza.data.errors import DataError
from cadenza.data.text.files.encodings import unfit
from cadenza.data.text.files.place import Place

NUL = "holds a NUL byte: it is binary, or UTF-16; convert it, or set data.encoding"
Numbered = Iterator[tuple[int, str]]  # the number of the first line, and lines as they stand


def plain_texts(place: Place, split: str) -> Iterator[str | DataError]:
    """The documents of `place`; `split` is as `data.split_text`. Only one of them is in memory."""
    with place.decoded(newline=None) as file:
        for first, text in SPLITS[split](place.counted(file)):
            yield _problem(first, text, place) or (text if split == "file" else text.removesuffix("\n"))


def _problem(first: int, text: str, place: Place) -> DataError | None:
    found = unfit(text, place.reading.encoding)
    if found is None and "\0" in text:
        found = text.index("\0"), NUL
    if found is None:
        return None
    at, problem = found
    cut = problem != NUL and at == len(text) - 1  # within the file's last character: a whole line has an end
    return place.bad(problem, first + text.count("\n", 0, at), cut)


def _file(lines: Iterable[str]) -> Numbered:
    yield 1, "".join(lines)


def _paragraphs(lines: Iterable[str]) -> Numbered:
    """Lines between those of white space alone."""
    first, found = 1, []
    for number, line in enumerate(lines, 1):
        if line.strip():
            first = first if found else number
            found.append(line)
        elif found:
            yield first, "".join(found)
            found = []
    if found:
        yield first, "".join(found)


def _lines(lines: Iterable[str]) -> Numbered:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


SPLITS: dict[str, Callable[[Iterable[str]], Numbered]] = {
    "file": _file,
    "paragraph": _paragraphs,
    "line": _lines,
}
