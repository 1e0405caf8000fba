"""When activations begin to be quantized: by hand, by a Trainer's clock, and what saved states say of it."""

import copy

import pytest
import torch
from composer.algorithms.warnings import NoEffectWarning
from families import batch, build
from quantized_reference import made
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.quantization.training.averages import weight
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
