"""Resumed streams: at any moment, the same weights as of an unbroken run."""

import pytest
import torch
from composer.core import Callback
from trainers import trained
from words import asked  # noqa: F401

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model:
  config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48,
           hidden_dropout_prob: 0.2}
tokenizer: {vocab_size: 300}
data: {source: c4, max_seq_len: 16, shuffle_buffer: 16, eval_documents: 8}
optimizer: {lr: 1e-2}
train:
  {max_duration: 12ba, global_batch_size: 4, save_interval: 1ba, eval_interval: 12ba, progress_bar: false}
"""
KINDS = {
    "masked": ("data.max_seq_len=8", "data.long_documents=split"),
    "packed": ("algorithms.sequence_packing={}", "data.max_seq_len=24", "train.global_batch_size=2"),
    "causal": (
        "model.objective=causal_lm",
        "model.config.is_decoder=true",
        "data.upsample_from=10",
        "data.upsample_times=2",
    ),
    "shortened": (
        "algorithms.seq_length_warmup={max_seq_length: 16, min_seq_length: 4, step_size: 4, duration: 1.0}",
    ),
}


class Passes(Callback):
    """Notes the draws of each batch, and the pass that they are of."""

    def __init__(self):
        self.draws, self.passes = [], []

    def after_dataloader(self, state, logger):
        self.draws.append(state.batch["draw"].tolist())
        self.passes.append(self.draws[-1][0] // 2**40)
        assert "place" not in state.batch


@pytest.fixture
def start(recipe, asked):  # noqa: F811
    """Trains a kind of run on a stream of 40 documents."""

    def start(kind, workers, *pairs, callback):
        chosen = "data.source=c4", f"data.num_workers={workers}", *KINDS[kind]
        return trained(recipe(*chosen, *pairs), callback)

    return start


def same_weights(one, other):
    theirs = dict(other.state.model.named_parameters())
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state.model.named_parameters())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_is_bit_for_bit_what_it_would_have_been(kind, workers, start, tmp_path):
    seen = Passes()
    whole = start(kind, workers, "name=whole", callback=seen)
    size = seen.passes.count(0)
    assert size > 3
    for batch in (size - 1, size, size + 1):
        (checkpoint,) = (tmp_path / "runs/whole/checkpoints").glob(f"ep*-ba{batch}-rank0.pt")
        resumed_seen = Passes()
        pairs = f"name=after{batch}", f"train.load_path={checkpoint}", "train.trust_load_path=true"
        resumed = start(kind, workers, *pairs, callback=resumed_seen)
        assert resumed_seen.draws == seen.draws[batch:]
        assert same_weights(whole, resumed), batch


@pytest.mark.parametrize("state", [None, {"taken": 12, "length": 40}])
def test_without_its_state_the_earlier_batches_are_made_again(state, start, tmp_path, capsys):
    """In a checkpoint of an earlier version, or of a run on files."""
    whole = start("masked", 0, "name=whole", callback=Passes())
    (checkpoint,) = (tmp_path / "runs/whole/checkpoints").glob("ep*-ba11-rank0.pt")
    saved = torch.load(checkpoint, weights_only=False)
    saved["state"]["dataset_state"]["train"] = state
    torch.save(saved, checkpoint)
    resumed = start("masked", 0, "name=again", f"train.load_path={checkpoint}", callback=Passes())
    assert same_weights(whole, resumed)
    assert "earlier batches are made again (the checkpoint does not say how far" in capsys.readouterr().out
