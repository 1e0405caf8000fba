"""Sampling: the right distribution, shared random numbers, the end token, and the same texts in any batch."""

import math

import pytest
import torch
from families import build

from cadenza.studies.ptq_sweep.measures import sampling

PROMPTS = torch.randint(3, 90, (3, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["llama", "gpt2", "mistral"])
def model(request):
    return build(request.param, initializer_range=0.3)


def step_by_step(model, prompt, temperature, k, seed, new, row):
    """Without a cache, one prompt by itself: the plain definition."""
    ids = prompt.tolist()
    for step in range(new):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1].double()
        kept = logits.topk(k).indices.tolist()
        gumbel = sampling.noise(seed, step, len(PROMPTS), torch.zeros(1, len(logits)))[row]
        ids.append(max(kept, key=lambda i: float(logits[i] / temperature + gumbel[i])))
    return ids[len(prompt) :]


def test_texts_are_those_of_the_plain_definition(model):
    settings = [(0.5, 3), (1.0, 20), (2.0, 90), (1.0, 1)]
    found = sampling.sample(model, PROMPTS, settings, 7, 6, ())
    for (temperature, k), texts in zip(settings, found, strict=True):
        expected = [step_by_step(model, prompt, temperature, k, 7, 6, i) for i, prompt in enumerate(PROMPTS)]
        assert texts == expected, (temperature, k)
    greedy = model.generate(PROMPTS, do_sample=False, min_new_tokens=6, max_new_tokens=6, pad_token_id=0)
    assert found[3] == greedy[:, 5:].tolist()


def test_which_settings_share_a_call_changes_nothing(model):
    settings = [(0.5, 3), (1.0, 20)]
    both = sampling.sample(model, PROMPTS, settings, 7, 6, ())
    assert both == [sampling.sample(model, PROMPTS, [each], 7, 6, ())[0] for each in settings]


def test_a_short_text_is_the_beginning_of_a_long_one(model):
    (long,), (short,) = (sampling.sample(model, PROMPTS, [(1.0, 50)], 3, new, ()) for new in (9, 4))
    assert [row[:4] for row in long] == short


def test_seeds_give_other_texts(model):
    first, again, other = (sampling.sample(model, PROMPTS, [(1.0, 50)], s, 8, ()) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_text_stops_behind_its_end_token(model):
    (free,) = sampling.sample(model, PROMPTS, [(1.0, 50)], 3, 9, ())
    ends = {free[0][2], free[1][5]}
    (found,) = sampling.sample(model, PROMPTS, [(1.0, 50)], 3, 9, ends)
    for text, whole in zip(found, free, strict=True):
        stop = next((i for i, token in enumerate(whole) if token in ends), len(whole) - 1)
        assert text == whole[: stop + 1]
    assert len(found[0]) <= 3


def test_nothing_is_computed_when_all_texts_have_ended(model, monkeypatch):
    calls, usual = [], sampling.forward
    monkeypatch.setattr(sampling, "forward", lambda *a, **b: calls.append(1) or usual(*a, **b))
    (found,) = sampling.sample(model, PROMPTS, [(1.0, 50)], 3, 9, range(90))
    assert [len(text) for text in found] == [1, 1, 1]
    assert len(calls) == 1, "that which reads the prompts"


def test_the_distribution_is_that_of_temperature_and_top_k():
    """20,000 draws; a share's standard deviation is at most 0.0036, and 5 of them are allowed."""
    logits = torch.tensor([[1.0, 0.2, 2.0, -1.0, 0.5]])
    expected = (logits[0, [2, 0, 4]] / 0.7).softmax(0)
    noise = sampling.noise(5, 0, 20_000, logits)
    rows = logits.expand(20_000, 5)
    drawn = sampling.choose(rows, torch.full((20_000,), 0.7), torch.full((20_000,), 3), noise)
    shares = torch.bincount(drawn, minlength=5) / 20_000
    assert shares[[1, 3]].tolist() == [0, 0]
    assert shares[[2, 0, 4]].tolist() == pytest.approx(expected.tolist(), abs=5 * 0.5 / math.sqrt(20_000))


def test_noise_differs_by_seed_step_and_prompt():
    like = torch.zeros(1, 50)
    one = sampling.noise(1, 2, 3, like)
    assert torch.equal(one, sampling.noise(1, 2, 3, like))
    assert len({tuple(row.tolist()) for row in one}) == 3
    assert not torch.equal(one, sampling.noise(2, 1, 3, like))
    assert not torch.equal(one, sampling.noise(1, 3, 3, like))
    assert one.isfinite().all()


def test_a_top_k_beyond_the_vocabulary_is_all_of_it():
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    gumbel = sampling.noise(0, 0, 2, logits)
    found = [sampling.choose(logits, torch.ones(2), torch.full((2,), k), gumbel).tolist() for k in (9, 100)]
    assert found[0] == found[1] == (logits + gumbel).argmax(-1).tolist()


def test_close_models_share_most_of_their_tokens():
    """With independent noise two models agree in sum(p^2) of the tokens, about 1 in 30 here."""
    logits = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    other = logits + 0.05 * torch.randn(2000, 50, generator=torch.Generator().manual_seed(1))
    gumbel = sampling.noise(0, 0, 2000, logits)
    one, two = (
        sampling.choose(x, torch.ones(2000), torch.full((2000,), 50), gumbel) for x in (logits, other)
    )
    assert (one == two).float().mean() > 0.9
