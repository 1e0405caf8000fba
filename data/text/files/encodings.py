"""The encoding of files of text: which are valid, what a byte order mark says, and bytes that don't fit."""

import codecs
import re
from typing import Any

from cadenza.data.errors import DataError

# The marks of 4 bytes first, since that of UTF-16 is the beginning of that of UTF-32.
MARKS = {
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
BOM = "\ufeff"
LONE = re.compile("[\ud800-\udfff]")  # what `KEPT` leaves of a byte that doesn't fit; no decoder gives it
KEPT = "cadenza.undecodable"


def _keep(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return chr(0xDC00 + error.object[error.start]), error.end


codecs.register_error(KEPT, _keep)


class Encoding:
    """The name of an encoding that Python knows."""

    def wrong(self, value: Any) -> str:
        """Empty if `value` is such a name."""
        try:
            if value.isprintable() and "a\n".encode(value).decode(value) == "a\n":
                return ""
        except (AttributeError, LookupError, ValueError):
            pass
        return "be an encoding that Python knows, such as utf-8, latin-1, cp1252 or utf-16"

    def __str__(self) -> str:
        return "an encoding of Python"


def unfit(text: str, encoding: str, start: int = 0, end: int | None = None) -> tuple[int, str] | None:
    """Of the first byte in `text[start:end]` that didn't fit: the index, and the problem; None if all did."""
    found = LONE.search(text, start, len(text) if end is None else end)
    if found is None:
        return None
    problem = f"is not {encoding.upper()} (byte 0x{ord(found[0]) & 0xFF:02x})"
    return found.start(), f"{problem}; convert it, or set data.encoding"


def codec(encoding: str, start: bytes, where: str) -> str:
    """The codec for text that begins with `start`; it leaves a byte order mark out.

    Args:
        encoding: the value of `data.encoding`.
        where: how an error message begins.

    Raises:
        DataError: the byte order mark is missing, or that of another encoding.
    """
    name = codecs.lookup(encoding).name.removesuffix("-sig")
    mark = next((each for each, content in MARKS.items() if start.startswith(content)), None)
    if mark is not None and not mark.startswith(name):
        problem = f"begins with the byte order mark of {mark}, but data.encoding is {encoding}"
        raise DataError(f"{where} {problem}; set data.encoding={mark}")
    if mark is None and start and name in ("utf-16", "utf-32"):
        right = f"set data.encoding={name}-le or {name}-be"
        raise DataError(f"{where} has no byte order mark, which {encoding} needs; {right}")
    if mark is None:
        return name
    return "utf-8-sig" if name == "utf-8" else mark[:6]  # the codecs that leave the mark out
