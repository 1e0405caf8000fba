"""The batch size warm-up in runs: rows, rates, resumes at any batch, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from composer.core import Callback
from paths import ROOT
from trainers import trained

from cadenza.recipe import RecipeError
from cadenza.surgery import SurgeryError

pytestmark = pytest.mark.slow

RECIPE = """
name: whole
model:
  config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48,
           hidden_dropout_prob: 0.2}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms: {batch_size_warmup: {initial: 2, until: 0.5dur}}
scheduler: {t_warmup: 0.25dur}
optimizer: {lr: 1e-2}
train: {max_duration: 24ba, global_batch_size: 8, save_interval: 1ba, eval_interval: 1dur,
  progress_bar: false}
"""
SIZES = [2] * 4 + [4] * 4 + [6] * 4 + [8] * 12
KINDS = {
    "masked": (),
    "samples": ("train.max_duration=144sp",),  # until 72 of them: 2 until 24, 4 until 48, 6 until 72
    "tokens": ("train.max_duration=2500tok", "algorithms.batch_size_warmup.until=12ba"),
    "packed": ("algorithms.sequence_packing={}", "data.max_seq_len=64"),
    "causal": ("model.objective=causal_lm", "model.config.is_decoder=true"),
}


class Seen(Callback):
    """Notes the draws of each batch, and the learning rate that it is trained at."""

    def __init__(self):
        self.draws, self.rates = [], []

    def batch_start(self, state, logger):
        self.draws.append(state.batch["draw"].tolist())
        self.rates.append(state.optimizers[0].param_groups[0]["lr"])

    @property
    def sizes(self):
        return list(map(len, self.draws))


def end_workers(trainer):
    """At once: where they are garbage in a cycle, torch waits five seconds for each."""
    for loader in (
        trainer.state.train_dataloader,
        *(e.dataloader.dataloader for e in trainer.state.evaluators),
    ):
        loader._iterator = None


def test_rows_are_those_of_a_run_without_it_in_the_same_order(recipe):
    grown, plain = Seen(), Seen()
    trainer = trained(recipe(), grown)
    trained(recipe("algorithms.batch_size_warmup=false"), plain)
    assert grown.sizes == SIZES
    assert plain.sizes == [8] * 24
    assert trainer.state.timestamp.sample == sum(SIZES)
    length = len(trainer.state.train_dataloader.dataset)
    for epoch in range(int(trainer.state.timestamp.epoch) + 1):
        of_epoch = [
            [draw for batch in run.draws for draw in batch if draw // length == epoch]
            for run in (grown, plain)
        ]
        shorter = min(map(len, of_epoch))
        assert of_epoch[0][:shorter] == of_epoch[1][:shorter]
        assert len(set(of_epoch[0])) == len(of_epoch[0]) > 0
    assert grown.rates == plain.rates, "in batches, the schedule is the same"


def test_a_duration_in_samples_has_more_batches(recipe):
    seen = Seen()
    trainer = trained(recipe(*KINDS["samples"]), seen)
    assert seen.sizes[:26] == [2] * 12 + [4] * 6 + [6] * 4 + [8] * 4
    assert 144 <= trainer.state.timestamp.sample < 152
    peak = max(seen.rates)
    # Composer sets the rate of a batch before it counts the batch before it.
    assert seen.rates[10] == pytest.approx(peak * 18 / 36), "half of the warm-up of 36 samples"


def test_micro_batches_do_not_matter(recipe):
    """Of 3 rows: of a batch of 2 rows they are one, of 8 rows three."""
    still = "model.config.hidden_dropout_prob=0.0", "model.config.attention_probs_dropout_prob=0.0"
    common = *still, "optimizer.name=adamw", "optimizer.eps=1e-3", "optimizer.lr=1e-3"
    weights = [
        dict(
            trained(
                recipe(*common, f"train.device_train_microbatch_size={rows}")
            ).state.model.named_parameters()
        )
        for rows in (3, 8)
    ]
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_resume_is_bit_for_bit_what_it_would_have_been(kind, recipe, tmp_path):
    whole = Seen()
    first = trained(recipe(*KINDS[kind]), whole)
    assert first.state.timestamp.epoch >= 1, len(first.state.train_dataloader.dataset)
    for batch, workers in ((1, 0), (6, 2), (len(whole.draws) - 5, 0)):
        (checkpoint,) = (tmp_path / "runs/whole/checkpoints").glob(f"ep*-ba{batch}-rank0.pt")
        pairs = f"train.load_path={checkpoint}", "train.trust_load_path=true", f"data.num_workers={workers}"
        resumed = Seen()
        second = trained(recipe(*KINDS[kind], f"name=after-{batch}", *pairs), resumed)
        assert resumed.draws == whole.draws[batch:]
        assert resumed.rates == whole.rates[batch:]
        theirs = dict(second.state.model.named_parameters())
        for name, weight in first.state.model.named_parameters():
            assert torch.equal(weight, theirs[name]), name
        end_workers(second)


def test_a_batch_that_cannot_grow_is_refused_before_a_step(recipe):
    seen = Seen()
    tokens = "train.max_duration=900tok", "algorithms.batch_size_warmup.until=0.5dur"
    with pytest.raises(SurgeryError, match=r"until is 0\.5dur of 900tok, but tokens are counted later"):
        trained(recipe(*tokens), seen)
    assert seen.draws == []
    with pytest.raises(RecipeError, match="initial is 8; it must be below"):
        recipe("algorithms.batch_size_warmup.initial=8")


def test_two_devices_share_the_batches_of_one(recipe, text, tmp_path):
    """Of 12 batches, each device has its half of the rows: one loss to rounding, and as many tokens."""
    pairs = [
        *("model.config.hidden_dropout_prob=0.0", "model.config.attention_probs_dropout_prob=0.0"),
        *("train.max_duration=12ba", "algorithms.batch_size_warmup.until=9ba", "optimizer.lr=1e-3"),
    ]
    alone = trained(recipe(*pairs))
    places = f"data.source={text}", f"train.run_folder={tmp_path / 'runs'}", "name=two"
    composer = [str(Path(sys.executable).with_name("composer")), "-n", "2", "train.py"]
    command = [*composer, str(tmp_path / "tiny.yaml"), *pairs, *places]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "runs/two/run.json").read_text())
    assert record["device"]["world_size"] == 2
    assert record["train"]["real_tokens"] == alone.state.timestamp.token.value
    (metrics,) = alone.state.eval_metrics.values()
    assert record["eval"]["loss"] == pytest.approx(float(metrics["LanguageCrossEntropy"].compute()), rel=1e-4)
