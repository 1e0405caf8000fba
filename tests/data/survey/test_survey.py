"""What a corpus holds, against plain counts; unknown words; examples."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from words import Words, lengths, texts, tokenized, windowed

from cadenza.data import DataError
from cadenza.data.survey.examples import TOKENS, batch, examples
from cadenza.data.survey.facts import facts
from cadenza.data.survey.histogram import draw
from cadenza.data.survey.lines import lines
from cadenza.data.survey.unknown import unknown_words
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.packing import PackedDocuments
from cadenza.recipe import load


class Decoder(Words):
    """Words whose end token is known, for windows."""

    eos_token_id = bos_token_id = 2


def test_documents_tokens_and_what_is_cut_off():
    found = facts(
        ["a b c", "", "a b c", "d " * 10, "a b c"], Words(), TextConfig(max_seq_len=8), causal=False
    )
    assert found.lengths.tolist() == [3, 0, 3, 10, 3]
    assert (found.repeated, found.empty, found.unknown) == (2, 1, 0)
    assert found.rows.tolist() == [5, 5, 8, 5]
    assert found.cut == 4
    assert found.padding == 1 - 23 / 32
    assert (found.packed, found.packed_padding) == (4, 1 - 23 / 32)


@pytest.mark.parametrize("split", [False, True])
def test_rows_are_those_of_training(split):
    corpus, tokenizer = texts(500), Words()
    cfg = TextConfig(max_seq_len=64, long_documents="split" if split else "truncate")
    found = facts(corpus, tokenizer, cfg, causal=False)
    trained = tokenized(corpus, tokenizer, 64, split)
    assert found.rows.tolist() == lengths(trained)
    packed = PackedDocuments(trained, 64, seed=3)
    assert abs(len(packed) - found.packed) <= 1, "the order in which rows are packed differs"
    assert found.packed_padding == pytest.approx(packed.waste, abs=0.01)
    assert found.cut == (0 if split else sum(max(len(text.split()) - 62, 0) for text in corpus))


def test_windows_are_full_and_lose_nothing():
    corpus, cfg = texts(200), TextConfig(max_seq_len=64)
    found = facts(corpus, Decoder(), cfg, causal=True)
    assert len(found.rows) == len(windowed(corpus, Decoder(), cfg, seed=0))
    assert set(found.rows[:-1]) == {64}
    assert (found.packed, found.packed_padding, found.cut) == (None, None, 0)


def known(*words):
    """A tokenizer that knows these words."""
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]", pad_token="[PAD]")


def test_unknown_words_by_their_number():
    tokenizer = known("a", "b")
    corpus = ["a b zig", "zag a zig", "", "b"] * 3
    assert unknown_words(corpus, tokenizer) == [("zig", 6), ("zag", 3)]
    assert unknown_words(corpus, tokenizer, most=1) == [("zig", 6)]
    assert unknown_words(["a b"], tokenizer) == []
    assert unknown_words(corpus, Words()) == [], "nothing is unknown to it"


def test_examples_show_what_is_seen_and_what_is_to_be_predicted():
    tokenizer = known("a", "b", "c")
    batch = {
        "input_ids": torch.tensor([[2, 3, 4, 0], [4, 4, 4, 4]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        "labels": torch.tensor([[-100, 4, -100, -100], [-100, -100, -100, 2]]),
    }
    assert examples(batch, tokenizer, causal=False) == ["a b<c> c", "c c c c<a>"]
    assert examples(batch, tokenizer, causal=True) == ["a b c", "c c c c"]
    long = {name: torch.ones(1, TOKENS + 5, dtype=torch.long) for name in batch} | {
        "labels": torch.full((1, TOKENS + 5), -100)
    }
    (row,) = examples(long, tokenizer, causal=False)
    assert row.split() == ["[UNK]"] * TOKENS + ["...", "5", "more"]


@pytest.mark.parametrize("corpus", [["a b c", "d"], [""], ["a"] * 3])
def test_any_lengths_can_be_drawn(corpus, tmp_path):
    found = facts(corpus, Words(), TextConfig(max_seq_len=8), causal=False)
    draw(found, "a corpus", tmp_path / "new" / "lengths.png")
    assert (tmp_path / "new" / "lengths.png").stat().st_size > 5_000
    assert isinstance(found.lengths, np.ndarray)


@pytest.mark.parametrize("causal", [False, True])
def test_documents_without_a_row_are_counted_and_give_no_example(causal, tmp_path):
    cfg, tokenizer = TextConfig(max_seq_len=8), Decoder()
    found = facts(["", " "], tokenizer, cfg, causal)
    assert (found.rows.tolist(), found.empty, found.filled) == ([], 2, [])
    assert "rows of 8 tokens: 0" in "\n".join(lines(found, tokenizer, cfg, partly=False))
    objective = "causal_lm" if causal else "masked_lm"
    assert batch(found.filled, tokenizer, load([], [f"model.objective={objective}"]), 3) is None
    draw(found, "nothing", tmp_path / "plot.png")


def test_examples_come_from_documents_with_a_token():
    assert facts(["", "a", ""], Words(), TextConfig(), False).filled == ["a"]


def test_no_document_at_all_is_an_error():
    with pytest.raises(DataError, match=r"^data.source: python_docs gives no document$"):
        facts([], Words(), TextConfig(), False)
