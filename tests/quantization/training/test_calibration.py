"""When activations begin to be quantized: by hand, by a Trainer's clock, and what saved states say of it."""

import copy

import pytest
import torch
from composer.algorithms.warnings import NoEffectWarning
from families import batch, build
from quantized_reference import made
from torch import nn

from cadenza.algorithms import (
    apply_quantization_aware_training,
    quantize_after_training,
    set_activation_bounds,
)
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.models import resnet
from cadenza.quantization.training.averages import weight
from cadenza.quantization.training.calibration import calibrate
from cadenza.quantization.training.fake_quantize import EPSILON
from cadenza.surgery import NoEffect, SurgeryError


def test_nothing_to_quantize_and_nothing_measured():
    with pytest.raises(NoEffect, match="found nothing to change in LayerNorm"):
        apply_quantization_aware_training(nn.LayerNorm(3))
    model, _ = made("linear")
    apply_quantization_aware_training(model)
    with pytest.raises(SurgeryError, match="no quantized layer has seen a batch in train mode"):
        set_activation_bounds(model)


def test_a_layer_that_is_not_called_goes_on_measuring():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    apply_quantization_aware_training(model)
    model[0](torch.randn(2, 4))
    assert set_activation_bounds(model) == 1
    assert [m.calibrating for m in model] == [False, True]
    assert set_activation_bounds(model) == 0


def test_loaded_states_end_the_calibration_and_a_copy_keeps_it():
    model, x = made("conv2d", torch.float32)
    other, _ = made("conv2d", torch.float32)
    for each in (model, other):
        apply_quantization_aware_training(each)
    model(x)
    set_activation_bounds(model)
    expected = model(5 * x)
    assert torch.equal(copy.deepcopy(model)(5 * x), expected)
    assert other[0].calibrating
    assert not torch.equal(other(5 * x), expected)
    other.load_state_dict(model.state_dict())
    assert not other[0].calibrating
    assert torch.equal(other(5 * x), expected)


def test_saved_folders_hold_the_bounds(tmp_path):
    from cadenza.models import load, save

    model = build("bert").train()
    apply_quantization_aware_training(model)
    inputs = batch("bert")
    model(**inputs)
    save(model.eval(), tmp_path / "early")
    set_activation_bounds(model)
    save(model, tmp_path / "late")
    with torch.no_grad():
        expected = model(**inputs).logits
        early, late = (load(tmp_path / name).eval() for name in ("early", "late"))
        assert torch.equal(late(**inputs).logits, expected)
        assert not torch.equal(early(**inputs).logits, expected)
    assert set_activation_bounds(early) > 0
    with torch.no_grad():
        assert torch.equal(early(**inputs).logits, expected)


def trained(calibrate_until, batches, **options):
    """A Composer run of small batches on a small network."""
    from composer import Trainer

    from cadenza.models import classifier

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    data = [(torch.randn(5, 1, 8, 8), torch.randint(3, (5,))) for _ in range(batches)]
    algorithm = QuantizationAwareTraining(calibrate_until=calibrate_until)
    model = classifier(network, 3)
    return Trainer(
        model=model,
        train_dataloader=torch.utils.data.DataLoader(data, batch_size=None),
        optimizers=torch.optim.SGD(model.parameters(), 0.05),
        algorithms=[algorithm],
        max_duration="1ep",
        progress_bar=False,
        device_train_microbatch_size=5,
        **options,
    )


@pytest.mark.parametrize(("until", "count"), [("3ba", 3), ("0.5dur", 3), ("11sp", 3), ("1ba", 1)])
def test_all_layers_switch_at_the_time(until, count):
    trainer = trained(until, 6)
    trainer.fit()
    measured = [m for m in trainer.state.model.modules() if hasattr(m, "calibrating")]
    assert [m.calibrating for m in measured] == [False] * 3
    assert [float(weight(m)) for m in measured] == pytest.approx([1 - 0.9**count] * 3)


def test_training_that_ends_before_says_so():
    trainer = trained("9ba", 4)
    with pytest.warns(NoEffectWarning, match="activations aren't quantized yet.*calibrate_until=9ba"):
        trainer.fit()


def test_calibrate_measures_in_eval_mode_and_sets_the_average_of_maxima():
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    apply_quantization_aware_training(model, granularity="per_tensor")
    batches = [torch.randn(5, 4, dtype=torch.float64) for _ in range(3)]
    before = copy.deepcopy(model[0].state_dict())
    assert calibrate(model, batches) == 1
    assert [m.training for m in model] == [True] * 3, "modes are as before"
    assert all(
        torch.equal(a, b) for a, b in zip(before.values(), model[0].state_dict().values(), strict=True)
    )
    average = total = 0.0
    for x in batches:  # batch norm of no statistics divides by sqrt(1 + eps)
        largest = (x / (1 + 1e-5) ** 0.5).max().item()
        average, total = average * 0.9 + largest * 0.1, total * 0.9 + 0.1
    smallest = 0.0
    for x in batches:
        smallest = smallest * 0.9 + (x / (1 + 1e-5) ** 0.5).min().item() * 0.1
    expected = (max(average, -smallest) / total + EPSILON) / 127
    assert model[2].input_scale().item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["tensor", "tuple", "mapping", "composer"])
def test_batches_are_what_the_model_is_called_with(kind):
    if kind == "composer":
        model, batches = resnet("resnet10", 0.125, 10, 1, "small"), [(torch.rand(2, 1, 8, 8), torch.ones(2))]
    elif kind == "mapping":
        model, batches = build("bert"), [dict(batch("bert"))]
    else:
        model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4)
        batches = [x if kind == "tensor" else (x,)]
    report = quantize_after_training(model, batches)
    assert report.changes
    layers = [m for m in model.modules() if hasattr(m, "calibrating")]
    assert layers
    assert not any(m.calibrating for m in layers)
    assert all(m.input_averages.shape[1] == 1 for m in layers)


def test_calibrate_without_batches_or_layers():
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(SurgeryError, match="no layer of the model calibrates"):
        calibrate(model, [torch.ones(1, 4)])
    apply_quantization_aware_training(model)
    with pytest.raises(SurgeryError, match="no quantized layer has seen a batch"):
        calibrate(model, [])
    with pytest.raises(SurgeryError, match="that was finite"):
        calibrate(model, [torch.full((1, 4), float("nan"))])
