"""The norm of the gradient that reaches the optimizer is at most `train.clip_norm`."""

import json

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from trainers import trained

from cadenza.recipe import RecipeError, run

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16,
  hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 16, eval_documents: 20}
scheduler: {t_warmup: 0ba}
train: {max_duration: 3ba, global_batch_size: 8, eval_interval: 1dur, progress_bar: false}
"""
CLIP = 0.05


@pytest.fixture
def norms():
    """The norm of the gradient of each step; Composer computes the gradient within the step."""
    found = []

    def note(optimizer, args, kwargs):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        found.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))

    hook = register_optimizer_step_post_hook(note)
    yield found
    hook.remove()


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_norm_is_of_the_whole_batch(recipe, norms, rows):
    pairs = "optimizer.name=adamw", f"train.device_train_microbatch_size={rows}"
    trained(recipe(*pairs))
    plain, norms[:] = list(norms), []
    assert min(plain) > 10 * CLIP, "else nothing would be clipped"
    trained(recipe(*pairs, f"train.clip_norm={CLIP}"))
    assert norms == pytest.approx([CLIP] * 3, rel=1e-4)  # torch divides by the norm + 1e-6


def test_a_smaller_gradient_stays_as_it_is(recipe, norms):
    pairs = "optimizer.name=adamw", "train.device_train_microbatch_size=2"
    trained(recipe(*pairs))
    plain, norms[:] = list(norms), []
    trained(recipe(*pairs, "train.clip_norm=1e6"))
    assert norms == plain


def test_the_record_has_it_and_a_resume_keeps_it(recipe, tmp_path):
    first = recipe(f"train.clip_norm={CLIP}", "train.save_interval=1ba", "train.max_duration=1ba")
    record = json.loads(run.train(first).read_text())
    assert record["recipe"]["train"]["clip_norm"] == CLIP
    saved = f"train.load_path={first.checkpoints}/ep0-ba1-rank0.pt"
    again = "name=again", saved, "train.trust_load_path=true"
    with pytest.raises(RecipeError, match=r"gradient_clipping is switched off, .* by train\.clip_norm=NORM"):
        run.train(recipe(*again))
    assert run.train(recipe(*again, f"train.clip_norm={CLIP}")) is not None
