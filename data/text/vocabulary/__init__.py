"""Tokenizers trained on text: each a function of the text and of its options, the same in every process."""

from cadenza.data.text.vocabulary.byte_bpe import train_byte_bpe
from cadenza.data.text.vocabulary.finished import SPECIAL
from cadenza.data.text.vocabulary.kinds import OPTIONS, TRAINERS, asked, key, train
from cadenza.data.text.vocabulary.unigram import train_unigram
from cadenza.data.text.vocabulary.wordpiece import train_wordpiece

__all__ = [
    "OPTIONS",
    "SPECIAL",
    "TRAINERS",
    "asked",
    "key",
    "train",
    "train_byte_bpe",
    "train_unigram",
    "train_wordpiece",
]
