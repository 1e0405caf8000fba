"""`warmup_stable_decay`: a decay from a checkpoint of the stable phase is that of a run planned so."""

import pytest
import torch

from cadenza.recipe import RecipeError, load
from cadenza.recipe.run import train

RECIPE = """
name: whole
model:
  config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48,
           hidden_dropout_prob: 0.2}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, eval_fraction: 0.2}
algorithms: {glu: {}}
scheduler: {name: warmup_stable_decay, t_warmup: 3ba, t_cooldown: 4ba, alpha_f: 0.0}
optimizer: {lr: 1e-2}
train: {max_duration: 14ba, global_batch_size: 8, save_interval: 7ba, progress_bar: false}
"""


def weights(folder, name, batch):
    (path,) = (folder / "runs" / name / "checkpoints").glob(f"ep*-ba{batch}-rank0.pt")
    return path, torch.load(path, weights_only=False)["state"]["model"]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["decoupled_adamw", "muon", "stable_adamw"])
@pytest.mark.parametrize("cooldown", ["4ba", "0.3dur"])
def test_a_decay_from_a_stable_checkpoint_is_that_of_a_run_planned_so(recipe, tmp_path, optimizer, cooldown):
    if optimizer == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("NOT VERIFIED HERE: torch.optim.Muon needs torch 2.9")
    if optimizer == "stable_adamw":
        pytest.importorskip("optimi", reason="NOT VERIFIED HERE: needs torch-optimi")
    common = f"optimizer.name={optimizer}", f"scheduler.t_cooldown={cooldown}"
    train(recipe(*common))
    train(recipe(*common, "name=long", "train.max_duration=28ba"))
    stable, _ = weights(tmp_path, "long", 7)
    train(recipe(*common, "name=decayed", f"train.load_path={stable}", "train.trust_load_path=true"))
    planned, decayed = (weights(tmp_path, name, 14)[1] for name in ("whole", "decayed"))
    going_on = weights(tmp_path, "long", 14)[1]
    assert all(torch.equal(planned[key], decayed[key]) for key in planned)
    assert any(not torch.equal(planned[key], going_on[key]) for key in planned), "there it doesn't decay"


@pytest.mark.slow
def test_a_decay_that_would_start_before_the_checkpoint_is_refused(recipe, tmp_path):
    train(recipe())
    stable, decayed = (weights(tmp_path, "whole", batch)[0] for batch in (7, 14))
    go = "name=other", "train.trust_load_path=true"
    with pytest.raises(RecipeError, match="the decay starts before the checkpoint of batch 7"):
        train(recipe(*go, f"train.load_path={stable}", "train.max_duration=8ba"))
    with pytest.raises(RecipeError, match="the decay isn't the one of the checkpoint of batch 14"):
        train(recipe(*go, f"train.load_path={decayed}", "train.max_duration=28ba"))
    train(recipe(*go, f"train.load_path={stable}", "train.max_duration=11ba"))


def test_a_warm_up_that_depends_on_the_duration_is_refused():
    with pytest.raises(RecipeError, match=r"scheduler\.t_warmup is 0\.06dur, a share of train\.max_duration"):
        load([], ["scheduler.name=warmup_stable_decay"])
