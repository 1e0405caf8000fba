"""The words of `tokenizer.new_tokens`: a list, or a file with one a line."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from cadenza.data.errors import DataError

KEY = "tokenizer.new_tokens"
SHOWN = 5


def listed(words: str | list[str]) -> list[str]:
    """The words: those of the file, if `words` is a path, without white space around them and blank lines.

    Raises:
        DataError: there is no such file, no word, one that is listed twice, or white space around one.
    """
    found = _read(words) if isinstance(words, str) else words
    where = words if isinstance(words, str) else "the list"
    if not found:
        raise DataError(f"{KEY}: {where} has no word in it; name words, or leave {KEY} out")
    if wrong := [word for word in found if not word or word != word.strip()]:
        raise DataError(f"{KEY}: {shown(wrong)} is empty or has white space around it; name the word alone")
    if odd := [word for word in found if not word.isprintable()]:
        raise DataError(f"{KEY}: {shown(odd)} must hold printable characters alone")
    if twice := [word for word, count in Counter(found).items() if count > 1]:
        raise DataError(f"{KEY}: {where} has {shown(twice)} twice; name each word once")
    return found


def shown(words: Iterable[str]) -> str:
    """The first words, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(map(repr, words[:SHOWN])) + more


def _read(name: str) -> list[str]:
    path = Path(name).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")  # which some editors begin a file with
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        right = f"name a file with a word a line, or a list, such as [{path.name}]"
        raise DataError(f"{KEY}: {name} can't be read ({reason}); {right}") from error
    return [word for line in text.splitlines() if (word := line.strip())]
