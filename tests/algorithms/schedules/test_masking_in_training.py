"""A masking schedule in stages in a run: the share of tokens that each batch is to predict, and a resume."""

import pytest
import torch
from composer.core import Callback
from trainers import trained

pytestmark = pytest.mark.slow

RECIPE = """
name: whole
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 64, long_documents: split, eval_fraction: 0.2}
algorithms: {sparse_prediction: , masking_schedule: {stages: {0dur: 0.30, 0.6dur: 0.15, 0.8dur: 0.05}}}
scheduler: {t_warmup: 1ba}
train: {max_duration: 10ba, global_batch_size: 16, save_interval: 1ba, eval_interval: 1dur,
  progress_bar: false}
"""
RATIOS = [0.30] * 6 + [0.15] * 2 + [0.05] * 2


class Shares(Callback):
    """Counts the labels of each batch and the tokens that may have one."""

    def __init__(self):
        self.counts, self.labels = [], []

    def after_dataloader(self, state, logger):
        labelled = state.batch["labels"] != -100
        whole = torch.where(labelled, state.batch["labels"], state.batch["input_ids"])
        eligible = state.dataloader.collate_fn.eligible({**state.batch, "input_ids": whole})
        self.counts.append((int(labelled.sum()), int(eligible.sum())))
        self.labels.append(state.batch["labels"])


def test_the_share_of_masked_tokens_falls_by_stage_and_goes_on_after_a_resume(recipe, tmp_path):
    whole, resumed = Shares(), Shares()
    first = trained(recipe(), whole)
    for ratio in set(RATIOS):
        own = [counts for counts, asked in zip(whole.counts, RATIOS, strict=True) if asked == ratio]
        labelled, eligible = map(sum, zip(*own, strict=True))
        assert abs(labelled - ratio * eligible) < 4 * (ratio * (1 - ratio) * eligible) ** 0.5, ratio
    (checkpoint,) = (tmp_path / "runs/whole/checkpoints").glob("ep*-ba7-rank0.pt")
    pairs = "name=resumed", f"train.load_path={checkpoint}", "train.trust_load_path=true"
    second = trained(recipe(*pairs), resumed)
    assert all(torch.equal(*pair) for pair in zip(whole.labels[7:], resumed.labels, strict=True))
    theirs = dict(second.state.model.named_parameters())
    assert all(torch.equal(w, theirs[name]) for name, w in first.state.model.named_parameters())
