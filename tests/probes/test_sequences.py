"""Rows of random tokens: what they contain, and that nothing else moves."""

import pytest
import torch
from families import VOCABULARY, build
from torch import tensor

from cadenza.probes.sequences import (
    Draw,
    documents,
    each_document,
    ordinary_ids,
    padded,
    positions,
    special_ids,
)


def test_tokens_are_those_of_the_vocabulary_that_no_config_names():
    model = build("bert")
    assert ordinary_ids(model).tolist() == list(range(3, VOCABULARY))
    assert special_ids(model.config) == {0, 1, 2}


def test_tokens_follow_from_the_seed_and_leave_the_global_generator_alone():
    model = build("gpt2")
    before = torch.get_rng_state()
    one, same, other = (Draw(model, seed).tokens(3, 40) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_of_the_other_tokens_differs():
    draw = Draw(build("bert"))
    tokens = draw.tokens(20, 50)
    others = draw.others(tokens)
    assert bool((others != tokens).all())
    assert others.unique().tolist() == list(range(3, VOCABULARY))


def test_a_vocabulary_of_special_tokens_is_refused():
    with pytest.raises(ValueError, match="vocabulary of 4 has 1 tokens that aren't special"):
        ordinary_ids(build("bert", vocab_size=4))


def test_documents_and_positions():
    numbers = documents(((2, 3), (1, 2)))
    assert torch.equal(numbers, tensor([[1, 1, 2, 2, 2], [1, 2, 2, -1, -1]]))
    assert torch.equal(positions(numbers), tensor([[0, 1, 0, 1, 2], [0, 0, 1, 0, 1]]))


def test_each_document_is_one_run_and_none_is_padding():
    found = dict(each_document(documents(((2, 3), (1, 2)))))
    names = ["row 0, document 1", "row 0, document 2", "row 1, document 1", "row 1, document 2"]
    assert list(found) == names
    assert found["row 1, document 2"].tolist() == [[False] * 5, [False, True, True, False, False]]


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[7, 8, 9, 9], [5, 6, 4, 9]], [[1, 1, 0, 0], [1, 1, 1, 0]]),
        ("left", [[9, 9, 7, 8], [9, 5, 6, 4]], [[0, 0, 1, 1], [0, 1, 1, 1]]),
    ],
)
def test_padded_rows(side, ids, mask):
    rows = [tensor([7, 8]), tensor([5, 6, 4])]
    found = padded(rows, 1, side, torch.full((2, 4), 9))
    assert (found[0].tolist(), found[1].tolist()) == (ids, mask)
