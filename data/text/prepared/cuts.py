"""Places where a text can be cut: the tokens of the parts, one after another, are those of the whole text.

Such a place is before a single space, tab or line end between two letters. Most tokenizers split a text there
into words, which are tokenized one by one. `separators` tries whether this one does.
"""

import itertools
import re
from typing import Any

LETTERS = "aZé\u043a\u0627\u5b57\u0e01\u0915"  # Latin, Cyrillic, Arabic, Chinese, Thai, Devanagari
SPACES = " \n\t"


def next_place(text: str, start: int, spaces: str) -> int:
    """The first place in `text` from the index `start` on; the length of the text if there is none.

    Args:
        spaces: the characters before which a text may be cut; none of them: nowhere.
    """
    if not spaces:
        return len(text)
    for found in re.compile(rf"(?<=[^\W\d_])[{spaces}](?=[^\W\d_])").finditer(text, start):
        at = found.start()
        if text[at - 1].isalpha() and text[at + 1].isalpha():
            return at
    return len(text)


def separators(backend: Any) -> str:
    """Those of `SPACES` at which `backend`, a tokenizer of the `tokenizers` library, splits every text.

    One without a pre-tokenizer has none: its pieces may span words. An added token may hold such a place, or
    take in the space behind it.
    """
    if backend.pre_tokenizer is None or any(map(_takes_space, backend.get_added_tokens_decoder().values())):
        return ""
    return "".join(space for space in SPACES if _splits(backend, space))


def _splits(backend: Any, space: str) -> bool:
    pairs = [(f"x{left}", f"{space}{right}y") for left, right in itertools.product(LETTERS, LETTERS)]
    return all(_ids(backend, a + b) == _ids(backend, a) + _ids(backend, b) for a, b in pairs)


def _ids(backend: Any, text: str) -> list[int]:
    return backend.encode(text, add_special_tokens=False).ids


def _takes_space(token: Any) -> bool:
    letters_first = any(a.isalpha() and b in SPACES for a, b in itertools.pairwise(token.content))
    return letters_first or (token.rstrip and token.content[-1:].isalpha())
