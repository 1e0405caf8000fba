"""Where words begin in a row of tokens, for WordPiece, byte-level BPE and SentencePiece.

WordPiece marks the pieces within a word (`##ing`). The two others mark the space in front of a word, so that
a piece of letters behind a piece that ends in a letter goes on with its word. A word is a run of letters,
their marks and digits, with a space in front of it if that is a piece alone; every other piece is a word of
its own, and so is each piece of a script that is written without spaces.
"""

import re
import unicodedata
from typing import Any

import torch
from tokenizers import decoders
from torch import Tensor

from cadenza.data.errors import DataError

MARKS = {"wordpiece": "##", "byte_level": "Ġ", "sentencepiece": "▁"}
LEAST = 0.01  # the share of the vocabulary that has the mark
JOINERS = "\u200c\u200d\ufffd"  # the last stands for a part of a character in UTF-8
UNSPACED = re.compile(  # Thai and Lao, Myanmar, Khmer, kana and Chinese characters
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)


class WordStarts:
    """The starts of words.

    Raises:
        DataError: the vocabulary has none of the three marks.
    """

    def __init__(self, tokenizer: Any) -> None:
        vocabulary = tokenizer.get_vocab()
        kind = _kind(vocabulary)
        size = max(vocabulary.values()) + 1
        self.joins, self.goes_on = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        for token, number in vocabulary.items():
            self.joins[number], self.goes_on[number] = _ends(token, kind)

    def __call__(self, ids: Tensor, eligible: Tensor) -> Tensor:
        """(batch, length) bool, True at the first token of each word.

        Args:
            ids: (batch, length) token ids.
            eligible: (batch, length), False at special tokens and padding, which end a word.
        """
        inside = self.joins[ids] & eligible
        inside[:, 1:] &= self.goes_on[ids[:, :-1]] & eligible[:, :-1]
        inside[:, 0] = False
        return ~inside


def of_words(drawn: Tensor, starts: Tensor) -> Tensor:
    """`drawn` (batch, length), with the number at a word's first token at all of its tokens."""
    column = torch.arange(drawn.shape[1]).expand_as(drawn)
    return drawn.gather(1, torch.where(starts, column, 0).cummax(1).values)


def _kind(vocabulary: dict[str, int]) -> str:
    counts = {kind: sum(token.startswith(mark) for token in vocabulary) for kind, mark in MARKS.items()}
    kind = max(counts, key=lambda name: counts[name])
    if counts[kind] < LEAST * len(vocabulary):
        marks = ", ".join(map(repr, MARKS.values()))
        raise DataError(
            f"data.masking: whole_word needs a tokenizer that marks words by one of {marks}; "
            "with this one use data.masking=token"
        )
    return kind


def _ends(token: str, kind: str) -> tuple[bool, bool]:
    """Whether a token may go on with the word before it, and whether the next one may go on with its own."""
    if kind == "wordpiece":
        return token.startswith(MARKS[kind]), True
    if kind == "byte_level":
        text = decoders.ByteLevel().decode([token])
    else:
        text = "\ufffd" if token.startswith("<0x") else token.replace(MARKS[kind], " ")
    return bool(text) and _letter(text[0]), text == " " or (bool(text) and _letter(text[-1]))


def _letter(character: str) -> bool:
    """Whether it is part of a word: a letter, its mark or joiner, a digit, or part of one in UTF-8."""
    if UNSPACED.match(character):
        return False
    return character.isalnum() or character in JOINERS or unicodedata.category(character).startswith("M")
