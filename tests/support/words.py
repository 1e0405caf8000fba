"""Tokenizers of one token a word, documents for them, and a stand-in for the Hub's sets of text."""

import json

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from cadenza.data import TokenizedDocuments, hub, pieces
from cadenza.data.text.datasets.windows import Tagging, WindowedDocuments
from cadenza.data.text.encoding import Encoder
from cadenza.data.text.prepared.cut import Cut

TEXTS = [f"document number {n} says {n * n}" for n in range(40)]


class Words:
    """A tokenizer of one token a word."""

    cls_token_id, sep_token_id, pad_token_id, mask_token_id = 1, 2, 0, 3
    all_special_ids = (0, 1, 2, 3)
    unk_token_id = None

    def get_vocab(self):
        return {f"word {number}": number for number in range(100)}

    def __call__(self, texts, **_):
        return {"input_ids": [[5 + len(word) % 90 for word in text.split()] for text in texts]}


class Tagged(Words):
    """One whose tag is the tokens 7 and 8: a text alone is a tag."""

    def __call__(self, texts, **_):
        return {"input_ids": [7, 8]} if isinstance(texts, str) else super().__call__(texts)


class TaggedDocuments:
    """The pieces of texts, all of them, one after another."""

    def __init__(self, tokenizer, cfg):
        self.encoder, self.tagging = Encoder(tokenizer), Tagging(tokenizer, cfg)

    def __call__(self, texts):
        return (piece for ids in self.encoder(texts) for piece in self.tagging.pieces(ids))


def tokenized(texts, tokenizer, max_seq_len, split=False):
    """The sequences of these texts, in memory."""
    return TokenizedDocuments(list(pieces(texts, tokenizer, Cut(max_seq_len - 2, split))), tokenizer)


def windowed(texts, tokenizer, cfg, seed):
    """The windows of these texts, in memory."""
    return WindowedDocuments(list(pieces(texts, tokenizer, Cut(None))), tokenizer, cfg, seed)


def lengths(dataset):
    """The tokens of each row."""
    return [len(dataset[index]["input_ids"]) for index in range(len(dataset))]


def tokenizer(words=40):
    """Of so many words, with its special ones out of their usual places."""
    from tokenizers import Tokenizer, models

    named = {"pad_token": "w7", "bos_token": "w8", "eos_token": "w9", "unk_token": "w0"}
    plain = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=plain, **named)


def texts(count=3000, seed=0):
    """Documents of web-like lengths: a median of 55 words, one in five above 126."""
    lengths = np.random.default_rng(seed).lognormal(4, 1, count).clip(1, 126).astype(int)
    return [" ".join("w" * (1 + (i + j) % 50) for j in range(n)) for i, n in enumerate(lengths)]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Answer `load_dataset` from files of 10 documents; returns what was asked for."""
    import datasets

    files = []
    for part in range(4):
        path = tmp_path / f"{part}.jsonl"
        rows = TEXTS[10 * part : 10 * part + 10]
        path.write_text("".join(json.dumps({"text": text, "url": "x"}) + "\n" for text in rows))
        files.append(str(path))
    calls, real = [], datasets.load_dataset

    def load(name, subset, split, streaming=False):
        calls.append((name, subset, split, streaming))
        return real("json", data_files=files, split="train", streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    return calls


class Characters:
    """A tokenizer of one token a character."""

    bos_token_id, eos_token_id = 1, 2

    def __call__(self, text, **options):
        assert options == {"add_special_tokens": False}
        return {"input_ids": [3 + ord(c) % 80 for c in text]}

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(97 + int(i) % 26) for i in ids)
