"""Texts that are tokenized in part or in parts: the same ids as those of the whole text."""

import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cadenza.data import train_byte_bpe, train_wordpiece
from cadenza.data.text import encoding
from cadenza.data.text.encoding import Encoder
from cadenza.data.text.prepared.cuts import SPACES, next_place, separators

ALPHABET = ["a", "b", "Z", "e\u0301", "\u00e9", "\u5b57", "\u0e01", "\u0915\u0941", "1", "23", "_"]
ALPHABET += [".", ".\n", "'s", "-", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\U0001f642", "\u200c"]
GPT4 = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)


def corpus(count, length, seed=0):
    """Texts of letters of several scripts, white space and marks."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(ALPHABET[:8], k=draw.randint(1, 6))) for _ in range(60)]
    return [
        "".join(draw.choice(words) + draw.choice(["", " ", " ", "\n", *ALPHABET]) for _ in range(length))
        for _ in range(count)
    ]


def gpt4(texts):
    """A byte-level BPE whose pieces join a mark and the line end behind it."""
    from tokenizers import Regex

    tokenizer = train_byte_bpe(texts, 400)
    split = pre_tokenizers.Split(Regex(GPT4), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    return tokenizer


def metaspace(texts, whole=False):
    """A unigram model with SentencePiece's mark of a space; `whole`: without words before it."""
    from tokenizers import trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    if whole:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", cls_token="<unk>")


KINDS = {
    "wordpiece": lambda texts: train_wordpiece(texts, 400),
    "byte_bpe": lambda texts: train_byte_bpe(texts, 400),
    "gpt4": gpt4,
    "metaspace": metaspace,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [None, 1, 7, 126])
def test_the_ids_are_those_of_the_whole_text(kind, limit, monkeypatch):
    texts = corpus(40, 300)
    tokenizer = KINDS[kind](texts)
    texts += ["", " ", "a", "\n\n", "ab" * 2000, "1 2 " * 500]
    wholes = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    monkeypatch.setattr(encoding, "PART", 64)
    monkeypatch.setattr(encoding, "CHARACTERS", 500)
    encoder = Encoder(tokenizer, limit)
    assert encoder.separators == (" " if kind == "metaspace" else SPACES)
    found = list(encoder(texts))
    assert [ids.tolist() for ids in found] == [whole[:limit] for whole in wholes]
    assert {ids.dtype for ids in found} == {np.dtype(np.int32)}
    assert encoder.tokens == sum(map(len, found))


def test_only_the_beginning_of_a_long_text_is_tokenized(monkeypatch):
    texts = corpus(4, 5000)
    tokenizer = train_wordpiece(texts, 400)
    encoder, read = Encoder(tokenizer, 62), []
    encoder._ids = lambda parts, ids=encoder._ids: (read.extend(parts), ids(parts))[1]
    list(encoder(texts))
    assert sum(map(len, read)) < 4 * 2000 < sum(map(len, texts)) / 5


def test_a_place_is_between_letters():
    text = "a. b 1 c  d e\nf"
    places = [index for index in range(len(text)) if next_place(text, index, SPACES) == index]
    assert places == [text.index(" e"), text.index("\nf")]
    assert next_place("abc", 0, SPACES) == 3
    assert next_place(text, 0, " ") == text.index(" e")
    assert next_place(text, 0, "") == len(text)


def added(content, **options):
    tokenizer = train_byte_bpe(["some text"], 300).backend_tokenizer
    tokenizer.add_tokens([AddedToken(content, normalized=False, **options)])
    return tokenizer


@pytest.mark.parametrize(
    ("content", "options", "whole"),
    [
        ("<x>", {}, True),
        ("<x>", {"rstrip": True, "lstrip": True}, True),
        ("  ", {}, True),
        ("new york", {}, False),
        ("new ", {}, False),
        ("new", {"rstrip": True}, False),
    ],
)
def test_added_tokens_that_take_in_a_space_forbid_cuts(content, options, whole):
    assert separators(added(content, **options)) == (SPACES if whole else "")


def test_pieces_that_may_span_words_forbid_cuts():
    texts = corpus(20, 50)
    assert not separators(metaspace(texts, whole=True).backend_tokenizer)
    tokenizer = train_byte_bpe(texts, 300).backend_tokenizer
    tokenizer.normalizer = normalizers.Prepend("x")
    assert not separators(tokenizer), "each part would begin with the letter"
    encoder = Encoder(metaspace(texts, whole=True), limit=5)
    assert [len(ids) for ids in encoder(texts)] == [5] * 20


def test_a_tokenizer_that_changes_the_text_in_python_is_called_itself():
    class Lower(PreTrainedTokenizerFast):
        def _encode_plus(self, text, *args, **kwargs):
            return super()._encode_plus([each.lower() for each in text], *args, **kwargs)

    plain = train_byte_bpe(["some text"], 300)
    tokenizer = Lower(tokenizer_object=plain.backend_tokenizer, unk_token="[UNK]")
    (ids,) = Encoder(tokenizer)(["SOME Text"])
    assert ids.tolist() == plain("some text", add_special_tokens=False)["input_ids"]


def test_truncation_that_a_tokenizers_file_asks_for_is_ignored_and_kept():
    tokenizer = train_byte_bpe(["some text"], 300)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    (ids,) = Encoder(tokenizer)(["some text and more"])
    assert len(ids) > 9
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 3
