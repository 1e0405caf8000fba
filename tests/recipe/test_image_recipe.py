"""Image recipes: what they load, train and record, calibration that is interrupted."""

import json
from dataclasses import replace

import pytest
import torch
from composer.core import Callback
from faulty_runs import weights
from trainers import trained

from cadenza.data import build_image_dataspec
from cadenza.quantization.training import averages
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.recipe import RecipeError, TrainingError, build, load, run
from cadenza.recipe import trainer as trainers
from cadenza.recipe.schema import ImageRecipe

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {objective: image_classification, model_type: resnet10, width: 0.125, stem: small}
data: {augmentation: crop_flip}
optimizer: {name: sgd, lr: 0.05}
scheduler: {t_warmup: 0ba}
train: {max_duration: 6ba, global_batch_size: 64, eval_interval: 1dur, progress_bar: false}
"""
QUANTIZED = "algorithms.quantization_aware_training={calibrate_until: 4ba}"


@pytest.fixture
def recipe(tmp_path):
    """RECIPE, with everything it writes under tmp_path."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    runs = f"train.run_folder={tmp_path / 'runs'}"
    return lambda *overrides: load([str(tmp_path / "tiny.yaml")], [runs, *overrides])


def quantized(trainer):
    return [m for m in trainer.state.model.modules() if isinstance(m, FakeQuantized)]


@torch.no_grad()
def plain_metrics(model, data):
    """Top-1, top-5 and cross-entropy over a loader, example by example."""
    logits, labels = zip(*[(model((x, y)).double(), y) for x, y in data], strict=True)
    logits, labels = torch.cat(logits), torch.cat(labels)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    loss = (logits.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]).mean()
    return {"top1": (ranks == 0).double().mean().item(), "top5": (ranks < 5).double().mean().item()} | {
        "loss": loss.item()
    }


def test_the_record(recipe, capsys):
    pairs = (
        "train.max_duration=1ep",
        "train.global_batch_size=32",
        "optimizer.lr=0.1",
        "optimizer.nesterov=true",
    )
    path = run.train(recipe(*pairs, "data.augmentation=none"))
    record = json.loads(path.read_text())
    assert record["recipe"]["model"]["stem"] == "small"
    assert record["recipe"]["optimizer"]["nesterov"] is True
    assert "tokenizer" not in record["recipe"]
    assert record["eval"].keys() == {"loss", "top1", "top5", "generalization_gap"}
    assert record["train"].keys() == {"seconds", "batches", "images_per_second", "loss", "top1"}
    assert record["train"]["batches"] == 1438 // 32
    rate = record["train"]["batches"] * 32 / record["train"]["seconds"]
    assert record["train"]["images_per_second"] == pytest.approx(rate)
    assert record["eval"]["top1"] > 0.7, "an epoch teaches much"
    assert record["eval"]["loss"] < 1
    gap = record["train"]["top1"] - record["eval"]["top1"]
    assert record["eval"]["generalization_gap"] == pytest.approx(gap)
    said = capsys.readouterr().out
    assert f"eval: top-1 {record['eval']['top1']:.2%}, top-5 {record['eval']['top5']:.2%}" in said


@pytest.fixture
def small(recipe):
    """A trained recipe whose evaluation ends in half a batch, its trainer, and its results."""
    tiny = recipe("data.train_images=800", "data.eval_images=100", "train.eval_batch_size=40")
    trainer = trained(tiny)
    return tiny, trainer, run.task_of(tiny).results(trainer, trainer.state.evaluators[0].dataloader)


def test_results_equal_a_plain_evaluation(small):
    """Each image counts as much as any other, also in a batch that isn't full."""
    tiny, trainer, results = small
    data = build_image_dataspec(tiny.data, train=False, batch_size=7, seed=0).dataloader
    found = plain_metrics(trainer.state.model.eval(), data)
    assert {name: results["eval"][name] for name in found} == pytest.approx(found, rel=1e-5)


def test_training_images_are_evaluated_as_they_are(small):
    """Without augmentation, and as many of them as there are for evaluation."""
    tiny, trainer, results = small
    cfg = replace(tiny.data, augmentation="none", train_images=100)
    seen = build_image_dataspec(cfg, train=True, batch_size=1, seed=tiny.seed).dataloader
    expected = plain_metrics(trainer.state.model.eval(), seen)["top1"]
    assert results["train"]["top1"] == pytest.approx(expected)
    assert results["eval"]["generalization_gap"] == pytest.approx(expected - results["eval"]["top1"])


def test_few_images_to_evaluate_on(recipe):
    """Fewer than a batch has."""
    record = json.loads(run.train(recipe("data.eval_images=50", "train.max_duration=1ba")).read_text())
    assert 0 <= record["train"]["top1"] <= 1


def test_a_finished_run_is_evaluated_alone(recipe, monkeypatch):
    tiny = recipe("train.save_interval=6ba", "train.autoresume=true")
    first = json.loads(run.train(tiny).read_text())
    monkeypatch.setattr(trainers.Trainer, "fit", None)
    second = json.loads(run.train(tiny).read_text())
    assert second["eval"] == first["eval"]
    assert second["train"]["top1"] == first["train"]["top1"]
    assert second["train"]["images_per_second"] == first["train"]["images_per_second"]


def test_channels_last(recipe):
    formats = []
    for last in ("true", "false"):
        model = run.task_of(recipe(f"model.channels_last={last}")).model()
        weight = model.module.layer1[0].conv1.weight
        formats.append(weight.is_contiguous(memory_format=torch.channels_last))
    assert formats == [True, False]


def test_calibration_ends_and_bounds_stay(recipe, tmp_path):
    trainer = trained(recipe(QUANTIZED, "train.save_interval=4ba"))
    layers = quantized(trainer)
    assert len(layers) == 13
    assert [layer.calibrating for layer in layers] == [False] * 13
    assert all(layer.calibrated for layer in layers)
    assert [float(averages.weight(layer)) for layer in layers] == pytest.approx([1 - 0.9**4] * 13)
    early = weights(tmp_path / "runs/tiny/checkpoints/ep0-ba4-rank0.pt")
    late = trainer.state.model.state_dict()
    bounds = [key for key in late if key.endswith("input_averages")]
    assert len(bounds) == 13
    for key in bounds:
        assert torch.equal(early[key], late[key]), key
        assert late[key].any(), key
        weight = key.replace("input_averages", "weight")
        assert not torch.equal(early[weight], late[weight]), "training went on"


def test_activations_are_quantized_after_the_calibration(recipe):
    trainer = trained(recipe(QUANTIZED))
    model, (x, y) = trainer.state.model.eval(), next(iter(trainer.state.train_dataloader))
    with torch.no_grad():
        rounded = model((x, y))
        for layer in quantized(trainer):
            layer.calibrated.zero_()
            layer.refresh()
        plain = model((x, y))
    assert (rounded - plain).norm() > 1e-2 * plain.norm()


def test_surgery_keeps_the_optimizers_groups(recipe):
    trainer = trained(recipe(QUANTIZED, "optimizer.decay_matrices_only=true", "train.max_duration=1ba"))
    matrices, flat = trainer.state.optimizers[0].param_groups
    assert {p.ndim for p in matrices["params"]} == {2, 4}
    assert {p.ndim for p in flat["params"]} == {1}
    held = {id(p) for p in (*matrices["params"], *flat["params"])}
    assert held == {id(p) for p in trainer.state.model.parameters()}


@pytest.fixture
def unbroken(recipe):
    """A run of six batches, four of them of calibration, that leaves a checkpoint after every second."""
    return trained(recipe(QUANTIZED, "train.save_interval=2ba", "name=whole")).state.model.state_dict()


def resumed(recipe, checkpoint):
    trainer = trained(recipe(QUANTIZED, "name=resumed", f"train.load_path={checkpoint}"))
    assert trainer.state.timestamp.batch == 6
    return trainer.state.model.state_dict()


def differences(one, other):
    assert one.keys() == other.keys()
    return {key for key in one if not torch.equal(one[key], other[key])}


@pytest.mark.parametrize("after", [2, 4])
def test_a_resume_goes_on_calibrating(after, recipe, unbroken, tmp_path):
    """In mid-calibration and at its end: weights, averages and counts are those of an unbroken run."""
    checkpoint = tmp_path / f"runs/whole/checkpoints/ep0-ba{after}-rank0.pt"
    saved = weights(checkpoint)
    counts = [saved[key].item() / averages.ONE for key in saved if key.endswith("input_batches")]
    assert counts == pytest.approx([1 - 0.9**after] * 13)
    assert not any(saved[key] for key in saved if key.endswith("calibrated"))
    assert differences(saved, unbroken), "there is something left to train"
    assert differences(resumed(recipe, checkpoint), unbroken) == set()


@pytest.mark.parametrize("lost", ["input_averages", "input_batches"])
def test_a_resume_without_what_was_measured_would_differ(lost, recipe, unbroken, tmp_path):
    """The comparison above can fail."""
    checkpoint = torch.load(tmp_path / "runs/whole/checkpoints/ep0-ba2-rank0.pt", weights_only=False)
    for key, value in checkpoint["state"]["model"].items():
        if key.endswith(lost):
            value.zero_()
    torch.save(checkpoint, tmp_path / "lost.pt")
    found = differences(resumed(recipe, tmp_path / "lost.pt"), unbroken)
    assert sum(key.endswith(lost) for key in found) == 13
    assert any(key.endswith("weight") for key in found)


class Stops(Callback):
    """Ends a run after its third batch, of which nothing is saved."""

    def batch_end(self, state, logger):
        if state.timestamp.batch == 3:
            raise KeyboardInterrupt


def test_an_autoresume_goes_on_calibrating(recipe, unbroken, tmp_path, capsys):
    """The same of a run that was stopped, by its name alone."""
    tiny = recipe(QUANTIZED, "train.save_interval=2ba", "train.autoresume=true", "name=stopped")
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, Stops())
    assert differences(trained(tiny).state.model.state_dict(), unbroken) == set()
    assert "resumed after batch 2" in capsys.readouterr().out


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_its_batch(recipe, tmp_path):
    diverging = recipe("train.save_interval=1ba")
    diverging.optimizer.lr = 1e30  # no recipe can say so
    with pytest.raises(TrainingError) as stop:
        run.train(diverging)
    folder = tmp_path / "runs/tiny"
    at = int(str(stop.value).split("at batch ")[1].split()[0])
    end = f"at batch {at} (epoch 0, its batch {at}); the batch is saved in {folder / 'bad-batch-rank0.pt'}"
    assert str(stop.value) in (f"the loss is nan {end}", f"the loss is inf {end}")
    pixels, labels = torch.load(folder / "bad-batch-rank0.pt")
    assert (pixels.shape, labels.shape) == ((64, 1, 8, 8), (64,))
    saved = sorted(path.name for path in (folder / "checkpoints").glob("ep*"))
    assert saved == [f"ep0-ba{n}-rank0.pt" for n in range(1, at)], "the spoilt weights aren't saved"
    assert not (folder / "run.json").exists()


WRONG = {
    "data": ("data.sorce=digits", "unknown key data.sorce; did you mean 'source'?"),
    "model": ("model.widht=2", "unknown key model.widht; did you mean 'width'?"),
    "optimizer": ("optimizer.nestorov=true", "unknown key optimizer.nestorov; did you mean 'nesterov'?"),
    "a text's": ("data.max_seq_len=3", "unknown key data.max_seq_len; valid: augmentation, eval_images,"),
    "value": ("data.augmentation=mixup", "data.augmentation is 'mixup'; it must be inception, crop_flip"),
    "tokenizer": ("tokenizer.vocab_size=300", "unknown key tokenizer"),
    "objective": ("model.objective=image_clasification", "model.objective is 'image_clasification'; did you"),
    "time": ("scheduler.t_cooldown=soon", "scheduler.t_cooldown is 'soon'; it must be a number with a unit"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case, recipe):
    pair, message = WRONG[case]
    with pytest.raises(RecipeError) as error:
        recipe(pair)
    assert str(error.value).startswith(f"command line: {message}")


@pytest.mark.parametrize("name", ["sparse_prediction", "sequence_packing", "masking_schedule"])
def test_techniques_of_text_are_refused(name, recipe):
    message = f"algorithms.{name} is for masked_lm; model.objective is image_classification"
    with pytest.raises(RecipeError, match=message):
        recipe(f"algorithms.{name}={{}}")
    assert recipe(f"algorithms.{name}=false").algorithms == {}


def test_what_a_recipe_is(recipe):
    tiny = recipe(QUANTIZED)
    assert type(tiny) is ImageRecipe
    (algorithm,) = build.algorithms(tiny.algorithms)
    assert (algorithm.weight_bits, algorithm.edge_bits, algorithm.calibrate_until) == (4, 8, "4ba")


def test_a_recipe_cools_down(recipe):
    """At the last of three batches; Composer's rates are those of the batch before."""
    rates = []
    for pairs in (("scheduler.name=cosine_with_cooldown", "scheduler.t_cooldown=2ba"), ()):
        trainer = trained(recipe(*pairs, "train.max_duration=3ba", "scheduler.alpha_f=0.1"))
        rates.append(trainer.state.optimizers[0].param_groups[0]["lr"])
    assert rates == pytest.approx([0.05 * 0.1 / 2, 0.05 * (0.1 + 0.9 / 3)])


def test_a_run_leaves_its_integers(recipe, tmp_path, capsys):
    from safetensors.torch import load_file

    run.train(recipe(QUANTIZED))
    state = load_file(tmp_path / "runs/tiny/integers.safetensors")
    assert state["module.layer1.0.conv2.weight"].dtype == torch.uint8
    assert state["module.fc.weight"].dtype == torch.int8
    assert "integers.safetensors, " in capsys.readouterr().out
    run.train(recipe("name=plain"))
    assert not (tmp_path / "runs/plain/integers.safetensors").exists()
