"""New words of a pretrained model begin as the mean of their pieces, in each table that has rows of words."""

import pytest
import torch
from families import CONFIGS, DECODERS, build

from cadenza.algorithms import apply_vocab_padding
from cadenza.models import load, save
from cadenza.models.pretrained import add_words
from cadenza.models.pretrained.new_words import tables

PIECES = {90: [5, 6, 7], 91: [8], 92: [5, 90 - 1]}
SIZE = 93


def expected(table, pieces=PIECES):
    """The plain reference: the old rows, then for each word the sum of its pieces by their number."""
    rows = [table[row].double() for row in range(len(table))]
    for number, ids in pieces.items():
        total = torch.zeros_like(rows[0])
        for piece in ids:
            total = total + table[piece].double()
        rows[number:] = [total / len(ids)]
    return torch.stack(rows).float()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", CONFIGS)
def test_embedding_output_weights_and_bias(family, tied):
    model = build(family, tie_word_embeddings=tied)
    before = [table.detach().clone() for table in tables(model)]
    biased = model.get_output_embeddings().bias is not None
    assert len(before) == 1 + (not tied) + biased
    add_words(model, PIECES, SIZE)
    assert model.config.vocab_size == SIZE
    for old, new in zip(before, tables(model), strict=True):
        torch.testing.assert_close(new.detach(), expected(old))
    same = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert same is tied
    ids = torch.tensor([[1, 92, 90]])
    assert model(ids).logits.shape == (1, 3, SIZE)


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "gpt2", "llama"])
def test_old_words_get_the_same_logits(family):
    model = build(family)
    ids = torch.tensor([[1, 5, 6, 7, 40]])
    before = model(ids).logits
    add_words(model, PIECES, SIZE)
    torch.testing.assert_close(model(ids).logits[..., :90], before)


def test_a_larger_embedding_keeps_its_size():
    """ModernBERT's has rows that no word has yet."""
    model = build("modernbert", vocab_size=128)
    old = [table.detach().clone() for table in tables(model)]
    add_words(model, PIECES, SIZE)
    assert model.config.vocab_size == 128
    for before, now in zip(old, tables(model), strict=True):
        torch.testing.assert_close(now[:SIZE].detach(), expected(before[:90]))
        assert torch.equal(now[SIZE:], before[SIZE:])


@pytest.mark.parametrize("multiple", [32, 8, 31])
@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_is_padded_again(multiple, tied, tmp_path):
    """Also where the new size is a multiple itself, 3 x 31, and after saving."""
    plain, padded = (build("bert", tie_word_embeddings=tied) for _ in range(2))
    apply_vocab_padding(padded, multiple)
    for model in (plain, padded):
        add_words(model, PIECES, SIZE)
    rows = -(-SIZE // multiple) * multiple
    assert {len(table) for table in tables(padded)} == {rows}
    for one, two in zip(tables(plain), tables(padded), strict=True):
        torch.testing.assert_close(two[:SIZE], one)
    ids = torch.tensor([[1, 92, 90]])
    torch.testing.assert_close(padded(ids).logits, plain(ids).logits)
    if rows > SIZE:
        loaded = load(save(padded, tmp_path / "padded"))
        torch.testing.assert_close(loaded(ids).logits, plain(ids).logits)


def test_padding_after_new_words():
    model = build(DECODERS[0])
    add_words(model, PIECES, SIZE)
    before = model(torch.tensor([[1, 92]])).logits
    apply_vocab_padding(model, 64)
    assert len(model.get_input_embeddings().weight) == 128
    torch.testing.assert_close(model(torch.tensor([[1, 92]])).logits, before)
