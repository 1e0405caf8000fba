"""How long a sequence a model has positions for, against what its forward takes."""

import pytest
import torch
from families import build

from cadenza.algorithms import apply_alibi
from cadenza.models.positions import longest


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2"])
def test_it_is_the_longest_that_the_forward_takes(family):
    model = build(family).eval()
    most = longest(model)
    with torch.no_grad():
        model(torch.full((1, most), 5))
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, most + 1), 5))


@pytest.mark.parametrize("family", ["llama", "modernbert", "qwen3"])
def test_rotary_positions_have_no_end(family):
    assert longest(build(family)) is None


def test_a_model_without_its_table_has_none():
    model = build("bert")
    apply_alibi(model)
    assert longest(model) is None
    assert longest(torch.nn.Linear(1, 1)) is None
