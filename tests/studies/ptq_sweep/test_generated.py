"""Measures of generated text by hand, and its likelihood under the unquantized model."""

import copy

import pytest
import torch
from families import build

from cadenza.studies.ptq_sweep.measures.generated import Judge, distinct, measures

PROMPTS = torch.randint(3, 90, (3, 5), generator=torch.Generator().manual_seed(0))
TEXTS = [[5, 6, 5, 6, 5, 6, 5], [8, 2], [10]]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_nats_are_those_of_each_text_alone(family):
    """In float64 without a cache; twice, since the cache of the prompts is used again."""
    model = build(family, initializer_range=0.3)
    judge, double = Judge(model, PROMPTS), copy.deepcopy(model).double()
    for texts in (TEXTS, TEXTS[::-1]):
        found = judge.nats(texts)
        assert [len(row) for row in found] == [len(text) for text in texts]
        for prompt, text, nats in zip(PROMPTS, texts, found, strict=True):
            ids = torch.cat([prompt, torch.tensor(text)])
            with torch.no_grad():
                logits = double(ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            expected = -logits.gather(-1, torch.tensor(text)[:, None])[:, 0]
            assert nats == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)


def test_texts_of_one_token_need_no_call():
    judge = Judge(build("llama"), PROMPTS)
    judge.model = None
    assert [len(row) for row in judge.nats([[4], [5], [6]])] == [1, 1, 1]


def test_measures_by_hand():
    found = measures([5, 6, 5, 6, 5, 6, 5], [1.0, 2, 3, 4, 5, 6, 7], 50, {2})
    assert found == {"nll": 4, "distinct_2": 2 / 6, "repeated_4": 1 - 2 / 4, "length": 7, "ended": 0}
    cut = measures([5, 6, 5, 6, 5, 6, 2], [1.0, 2, 3, 4, 5, 6, 7], 3, {2})
    assert cut == {"nll": 2, "distinct_2": 1, "repeated_4": 0, "length": 3, "ended": 0}
    ended = measures([5, 6, 2], [1.0, 2, 6], 3, {2})
    assert (ended["ended"], ended["length"], ended["nll"]) == (1, 3, 3), "the end token is of the text"


def test_distinct():
    assert distinct([1, 2, 1, 2, 1], 2) == 2 / 4
    assert distinct([1, 2, 3, 4], 4) == 1
    assert distinct([7, 7, 7], 1) == 1 / 3
    assert distinct([1, 2, 3], 4) == 1, "nothing repeats"
