"""Rows that are cut in the main process, before they are masked and counted: all tensors by token alike."""

import pytest
import torch
from words import Words

from cadenza.data import MaskedLMCollator, train_wordpiece
from cadenza.data.text.datasets.windows import CausalLMCollator
from cadenza.data.text.loader import count_tokens

WORDS = [f"w{i}" for i in range(200)]
LENGTHS = [5, 12, 23, 24]


@pytest.fixture(scope="module")
def tokenizer():
    return train_wordpiece([" ".join(WORDS)], 300)


def collator(tokenizer, ratio=0.3, **options):
    return MaskedLMCollator(tokenizer, ratio, 24, 17, **options)


def examples(packed=False, lengths=LENGTHS, draws=0):
    """Rows of [CLS], words and [SEP]; packed: two documents each, the first of 7 tokens at most."""
    made = []
    for row, length in enumerate(lengths):
        ids = torch.cat([torch.tensor([2]), 10 + torch.arange(length - 2), torch.tensor([3])])
        documents = torch.where(torch.arange(length) < min(7, length), 1, 2)
        made.append(
            {"input_ids": ids, "draw": draws + row, **({"document_ids": documents} if packed else {})}
        )
    return made


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("length", [1, 3, 11, 12, 24, 99])
def test_a_cut_batch_is_the_beginning_of_the_whole_one(tokenizer, length, packed):
    made = collator(tokenizer, ratio=0.6)
    whole, raw = made.mask(made(examples(packed))), made(examples(packed))
    made.length = length
    cut = made.mask(raw)
    assert set(cut) == set(whole)
    assert ("document_ids" in cut) == packed
    for name, values in cut.items():
        expected = whole[name] if name == "draw" else whole[name][:, :length]
        assert torch.equal(values, expected), name
    counts = count_tokens(cut)
    assert counts["total"] == sum(min(each, length) for each in LENGTHS)
    assert counts["loss_generating"] in (int((cut["labels"] != -100).sum()), 1e-30)


def test_no_length_cuts_nothing(tokenizer):
    made = collator(tokenizer)
    raw = made(examples())
    assert made.shortened(raw) is raw
    made.length = 4
    assert made.mask(raw)["input_ids"].shape == (4, 4)
    made.length = None
    assert made.mask(raw)["input_ids"].shape == (4, 24)
    assert all(torch.equal(raw[name], values) for name, values in made(examples()).items())


@pytest.mark.parametrize("words", [False, True])
def test_each_batch_has_a_label_where_it_has_a_token_to_predict(tokenizer, words):
    """At 2 % of 2 rows of 8 tokens, most batches have no label by chance."""
    made = collator(tokenizer, ratio=0.02, words=words)
    chosen = []
    for draws in range(0, 200, 2):
        made.length = 8
        labels = made.mask(made(examples(lengths=[24, 24], draws=draws)))["labels"]
        assert (labels != -100).any()
        made.length = None
        whole = made.mask(made(examples(lengths=[24, 24], draws=draws)))["labels"]
        chosen.append(bool((whole[:, :8] != -100).any()))
    assert sum(chosen) < 60, "cut afterwards, they would have none"


def test_the_share_of_masked_tokens_is_that_of_the_cut_rows(tokenizer):
    made = collator(tokenizer, ratio=0.3)
    made.length = 9
    batch = made.mask(made(examples(lengths=[24] * 800)))
    eligible = 800 * 8  # all but [CLS]
    labelled = int((batch["labels"] != -100).sum())
    assert abs(labelled - 0.3 * eligible) < 4 * (0.3 * 0.7 * eligible) ** 0.5


@pytest.mark.parametrize("packed", [False, True])
def test_the_end_of_a_cut_row_is_kept_and_never_masked(tokenizer, packed):
    made = collator(tokenizer, ratio=0.9)
    made.length, made.keep_end = 10, True
    raw = made(examples(packed))
    expected = raw["input_ids"][:, :10].clone()
    expected[1:, 9] = 3
    batch = made.mask(raw)
    labelled = batch["labels"] != -100
    assert torch.equal(torch.where(labelled, batch["labels"], batch["input_ids"]), expected)
    assert not labelled[:, 9].any()
    if packed:
        assert batch["document_ids"][1:, 9].tolist() == [2, 2, 2]


def test_windows_are_cut_with_their_labels_and_documents():
    made = CausalLMCollator(Words(), boundary_loss=False)
    rows = [
        {
            "input_ids": torch.arange(3, 3 + size),
            "document_ids": torch.tensor([0, *[1] * 3, *[2] * (size - 4)]),
            "tagged": torch.arange(size) == 5,
            "draw": size,
        }
        for size in (6, 9)
    ]
    whole = made(rows)
    assert made.shortened(whole) is whole
    made.length = 7
    cut = made.shortened(made(rows))
    assert cut["draw"].tolist() == [6, 9]
    for name in ("input_ids", "attention_mask", "document_ids", "labels"):
        assert torch.equal(cut[name], whole[name][:, :7]), name
    assert count_tokens(cut) == {"total": 13, "loss_generating": 7.0}
