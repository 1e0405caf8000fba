"""Words added to a tokenizer, each with the pieces that it was split into before.

A new word is found where no letter or digit touches it: `covid` in `covid-19`, not in `covidien`. A tokenizer
that turns text to lower case finds it in any case.
"""

import copy
from typing import Any

from tokenizers import AddedToken

from cadenza.data.errors import DataError
from cadenza.data.text.new_words.listed import KEY, shown

AROUND = "a {} b"  # tokenizers that mark spaces treat a word within a text in another way than one alone


def extended(tokenizer: Any, words: list[str]) -> tuple[Any, dict[int, list[int]]]:
    """A copy of `tokenizer` that knows `words`; and id of each new word -> ids of its pieces before.

    Raises:
        DataError: a word is one token already, or it isn't found in a text as a token of its own.
    """
    pieces = _ids(tokenizer, words)
    if known := [word for word, ids in zip(words, pieces, strict=True) if _known(tokenizer, word, ids)]:
        raise DataError(f"{KEY}: {shown(known)} is in the tokenizer already; leave it out")
    larger, missed = _with(tokenizer, words, normalized=True)
    if len(missed) == len(words):  # spaces are part of the normalized text, as in Llama's tokenizer
        larger, missed = _with(tokenizer, words, normalized=False)
    if missed:
        right = "leave out what differs from another word in case alone"
        raise DataError(f"{KEY}: {shown(missed)} isn't found in a text as a word of its own; {right}")
    numbers = _numbers(tokenizer, larger)
    return larger, dict(zip(numbers, pieces, strict=True))


def _known(tokenizer: Any, word: str, ids: list[int]) -> bool:
    """Whether `word` is a token by itself, or behind a space."""
    alone = [ids, *_ids(tokenizer, [f" {word}"])]
    found = any(len(each) == 1 and each != [tokenizer.unk_token_id] for each in alone)
    return found or word in tokenizer.get_vocab()


def _with(tokenizer: Any, words: list[str], normalized: bool) -> tuple[Any, list[str]]:
    """A copy with `words` added, and those of them that it doesn't find in a text."""
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens([AddedToken(word, single_word=True, normalized=normalized) for word in words])
    numbers = _numbers(tokenizer, larger)
    if len(numbers) != len(words):
        return larger, words
    texts = _ids(larger, [AROUND.format(word) for word in words])
    found = zip(words, numbers, texts, strict=True)
    return larger, [word for word, number, ids in found if number not in ids]


def _numbers(tokenizer: Any, larger: Any) -> list[int]:
    """The ids that were added, in the order of the words."""
    return sorted(set(larger.get_vocab().values()) - set(tokenizer.get_vocab().values()))


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
