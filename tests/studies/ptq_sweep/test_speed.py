"""Speeds on a clock of the test's own."""

from types import SimpleNamespace

import pytest
import torch

from cadenza.studies.ptq_sweep.measures import speed

PROMPTS = torch.ones(2, 4, dtype=torch.long)


class Pretended:
    """A model whose calls take a given time on a shared clock."""

    device = torch.device("cpu")
    config = SimpleNamespace()

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=0.0, calls=[])

    def read_prompts(model, prompts):
        found.now += 10 * model.seconds
        return None, torch.zeros(len(prompts), 9)

    def forward(model, ids, mask, cache):
        found.calls.append((model.seconds, tuple(mask.shape)))
        found.now += model.seconds
        return torch.zeros(len(ids), 1, 9)

    monkeypatch.setattr(speed, "read_prompts", read_prompts)
    monkeypatch.setattr(speed, "forward", forward)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: found.now)
    return found


def test_tokens_a_second_of_each_round(clock):
    plain, other = Pretended(clock, 1.0), Pretended(clock, 2.0)
    found = speed.in_turns(plain, other, PROMPTS, 3, 4, swap=False)
    assert found == {
        "prefill": [8 / 20] * 4,
        "decode": [6 / 6] * 4,
        "plain_prefill": [8 / 10] * 4,
        "plain_decode": [6 / 3] * 4,
    }
    order = [seconds for seconds, shape in clock.calls if shape == (2, 5)]
    assert order == [1, 2, 2, 1, 1, 2, 2, 1, 1, 2], (
        "each round begins with the other model; one is to warm up"
    )


def test_a_model_that_must_wait_is_moved(clock):
    moves = []
    plain, other = (Pretended(clock, 1.0) for _ in range(2))
    for name, model in (("plain", plain), ("other", other)):
        model.to = lambda where, name=name: moves.append((name, where))
    speed.in_turns(plain, other, PROMPTS, 1, 1, swap=True)
    assert moves == [(n, w) for n in ("plain", "other", "other", "plain") for w in ("cuda", "cpu")]


def test_when_models_must_be_moved(monkeypatch):
    model = torch.nn.Linear(10, 10, bias=False)
    assert not speed.must_swap(model, model)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for total, expected in ((800 / 0.6 + 1, False), (800 / 0.6 - 1, True)):
        memory = SimpleNamespace(total_memory=total)
        monkeypatch.setattr("torch.cuda.get_device_properties", lambda _, memory=memory: memory)
        assert speed.must_swap(model, model) == expected
