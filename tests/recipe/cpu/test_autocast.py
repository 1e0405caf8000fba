"""amp_bf16 on a CPU: what is computed in bfloat16, what stays float32, what the run says of itself."""

import json
import warnings

import pytest
import torch
from composer.algorithms.warnings import NoEffectWarning
from composer.core import Callback
from composer.models import HuggingFaceModel

from cadenza.models import masked_lm, resnet
from cadenza.models.language_model import LanguageModel
from cadenza.recipe import run
from cadenza.recipe.cpu import precision
from cadenza.recipe.cpu.autocast import Autocast
from cadenza.surgery.checkpoint import read
from cadenza.surgery.retype import mix, stock_class

RECIPE = """
name: tiny
tokenizer: {vocab_size: 300}
scheduler: {t_warmup: 1ba}
train: {max_duration: 2ba, global_batch_size: 8, eval_batch_size: 8, eval_interval: 1dur, progress_bar: false,
        save_interval: 1ba, precision: amp_bf16}
data: {max_seq_len: 24, eval_fraction: 0.2}
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}}
algorithms: {low_precision_norm: {}}
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(precision, "speed", lambda: 2.0)


class Seen(Callback):
    """What a linear layer and a norm gave in training and in evaluation, and the state at the end."""

    def __init__(self):
        self.linear, self.norm = {}, {}

    def after_load(self, state, logger):
        layer = state.model.model.bert.encoder.layer[0].output
        for module, seen in ((layer.dense, self.linear), (layer.LayerNorm, self.norm)):
            module.register_forward_hook(
                lambda m, args, out, seen=seen: seen.setdefault(m.training, out.dtype) and None
            )

    def batch_end(self, state, logger):
        self.state = state


@pytest.fixture
def played(monkeypatch):
    """Trains a recipe; gives its record and what was seen."""

    def played(recipe):
        seen, callbacks = Seen(), run.trainer_settings

        def settings(recipe):
            found = callbacks(recipe)
            found["callbacks"].append(seen)
            return found

        monkeypatch.setattr(run, "trainer_settings", settings)
        path = run.train(recipe)
        monkeypatch.setattr(run, "trainer_settings", callbacks)
        return json.loads(path.read_text()), seen

    return played


def test_training_and_evaluation_run_in_bfloat16_and_weights_stay_float32(recipe, played):
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)  # low-precision norms act
        record, seen = played(recipe())
    assert record["precision"] == "amp_bf16"
    assert seen.linear == seen.norm == {True: torch.bfloat16, False: torch.bfloat16}
    state = seen.state
    assert {p.dtype for p in state.model.parameters()} == {torch.float32}
    moments = [v for s in state.optimizers[0].state.values() for v in s.values() if v.ndim]
    assert moments
    assert {m.dtype for m in moments} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


def test_in_float32_nothing_is(recipe, played):
    with pytest.warns(NoEffectWarning, match="LowPrecisionNorm acts under autocast"):
        record, seen = played(recipe("train.precision=fp32"))
    assert record["precision"] == "fp32"
    assert seen.linear == {True: torch.float32, False: torch.float32}


def test_a_checkpoint_says_it_and_a_resume_keeps_it(recipe, played, monkeypatch, capsys):
    """Even where the CPU would choose otherwise by then."""
    played(recipe())
    latest = recipe().checkpoints / "latest-rank0.pt"
    assert read(latest, trusted=True)["metadata"]["precision"] == "amp_bf16"
    monkeypatch.setattr(precision, "speed", lambda: 1.0)
    more = "train.max_duration=3ba", "train.autoresume=true", "train.precision=auto"
    record, seen = played(recipe(*more))
    assert record["precision"] == "amp_bf16"
    assert record["train"]["batches"] == 3
    assert seen.linear[True] == torch.bfloat16
    assert "precision: amp_bf16 (auto: the checkpoint's)" in capsys.readouterr().out


def test_weights_alone_leave_the_choice(recipe, played, monkeypatch):
    played(recipe())
    monkeypatch.setattr(precision, "speed", lambda: 1.0)
    path = recipe().checkpoints / "latest-rank0.pt"
    more = f"train.load_path={path}", "train.load_weights_only=true", "name=other", "train.precision=auto"
    record, _ = played(recipe(*more, "train.trust_load_path=true"))
    assert record["precision"] == "fp32"


def classifier():
    torch.manual_seed(0)
    model = resnet("resnet10", 0.125, 10, 1, "small").train()
    return model, (torch.randn(4, 1, 28, 28), torch.tensor([1, 2, 3, 4]))


def test_losses_and_metrics_are_float32():
    """A cross-entropy in bfloat16 would be off by up to a hundredth."""
    model, batch = classifier()
    undo = mix(model, Autocast)
    outputs = model(batch)
    assert outputs.dtype == torch.bfloat16
    assert model.loss(outputs, batch).dtype == torch.float32
    metric = model.get_metrics(is_train=False)["CrossEntropy"]
    model.update_metric(batch, outputs, metric)
    exact = torch.nn.functional.cross_entropy(outputs.double(), batch[1])
    assert metric.compute().item() == pytest.approx(float(exact), rel=1e-5)
    assert model.eval().eval_forward(batch).dtype == torch.bfloat16
    undo()
    assert model.train()(batch).dtype == torch.float32


def test_gradients_are_float32_and_near_those_of_float32():
    model, batch = classifier()
    model.loss(model(batch), batch).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    mix(model, Autocast)
    model.loss(model(batch), batch).backward()
    found = [p.grad for p in model.parameters()]
    assert {gradient.dtype for gradient in found} == {torch.float32}
    found, right = (torch.cat([g.flatten() for g in each]) for each in (found, expected))
    assert 0 < (found - right).norm() < 0.1 * right.norm()


def test_the_model_keeps_its_class_and_its_names():
    """So that checkpoints are the same in both precisions."""
    model = masked_lm(config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2})
    keys = list(model.state_dict())
    mix(model, Autocast)
    assert isinstance(model, HuggingFaceModel)
    assert stock_class(model) is LanguageModel
    assert list(model.state_dict()) == keys
