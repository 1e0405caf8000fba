"""Resumed data: at any batch, the same weights as of an unbroken run, and no earlier row is read."""

import json

import pytest
import torch
from composer.core import Callback
from trainers import trained
from words import texts

from cadenza.data import EpochSampler

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model:
  config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48,
           hidden_dropout_prob: 0.2}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, eval_fraction: 0.2}
optimizer: {lr: 1e-2}
train: {max_duration: 9ba, global_batch_size: 8, save_interval: 1ba, eval_interval: 1dur, progress_bar: false}
"""
EPOCH = 4  # batches of an epoch
KINDS = {
    "masked": (),
    "packed": ("algorithms.sequence_packing={}", "data.max_seq_len=128"),
    "mixture": (
        "data.source=python_docs",
        "data.mixture=[{source: ONE, weight: 2}, {source: TWO, weight: 1}]",
    ),
    "causal": ("model.objective=causal_lm", "model.config.is_decoder=true"),
}


@pytest.fixture
def start(recipe, tmp_path):
    """Trains a kind of run on a text of about EPOCH batches, and returns its Trainer."""

    def written(name, count):
        path = tmp_path / name
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(count, seed=count)))
        return str(path)

    def start(kind, *pairs, callback):
        count = {"masked": 42, "packed": 88, "mixture": 30, "causal": 11}[kind]
        one, two = written("one.jsonl", count), written("two.jsonl", count // 2)
        chosen = [pair.replace("ONE", one).replace("TWO", two) for pair in KINDS[kind]]
        return trained(recipe(f"data.source={one}", *chosen, *pairs), callback)

    return start


@pytest.fixture
def given(monkeypatch):
    """The draws that the samplers of training gave."""
    given, iterate = [], EpochSampler.__iter__

    def recorded(sampler):
        for draw in iterate(sampler):
            if sampler.shuffle:
                given.append(draw)
            yield draw

    monkeypatch.setattr(EpochSampler, "__iter__", recorded)
    return given


class Draws(Callback):
    """Notes the first draw of each batch."""

    def __init__(self):
        self.first = []

    def after_dataloader(self, state, logger):
        self.first.append(int(state.batch["draw"][0]))


def end_workers(trainer):
    """At once: where they are garbage in a cycle, torch waits five seconds for each."""
    loaders = trainer.state.train_dataloader, *(e.dataloader.dataloader for e in trainer.state.evaluators)
    for loader in loaders:
        loader._iterator = None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, EPOCH, EPOCH + 1, 2 * EPOCH])
def test_a_resume_is_bit_for_bit_what_it_would_have_been(kind, batch, start, tmp_path, given):
    whole_draws, resumed_draws = Draws(), Draws()
    whole = start(kind, "name=whole", callback=whole_draws)
    assert whole.state.timestamp.epoch == 2, len(whole.state.train_dataloader.dataset)
    (checkpoint,) = (tmp_path / "runs/whole/checkpoints").glob(f"ep*-ba{batch}-rank0.pt")
    given.clear()
    workers = f"data.num_workers={batch % 2 * 2}"
    pairs = f"train.load_path={checkpoint}", workers, "train.trust_load_path=true"
    resumed = start(kind, "name=resumed", *pairs, callback=resumed_draws)
    theirs = dict(resumed.state.model.named_parameters())
    for name, weight in whole.state.model.named_parameters():
        assert torch.equal(weight, theirs[name]), name
    assert resumed_draws.first == whole_draws.first[batch:]
    end_workers(resumed)
    assert not set(given) & set(whole_draws.first[:batch]), "no row of an earlier batch is asked for"
