"""Averages of inputs: right through casts and averages of models; what isn't finite is left out."""

import copy

import pytest
import torch
from composer.algorithms.ema.ema import EMAParameters
from composer.functional import compute_ema
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.training.averages import ONE, weight
from cadenza.surgery import SurgeryError


def network(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    apply_quantization_aware_training(model, 8, 8, 8, **options)
    return model


def bounds(model):
    """The means of maxima and minima of each layer."""
    return [layer.averages / weight(layer) for layer in (model[0], model[2])]


def same(one, other, rtol=1e-5):
    return all(torch.allclose(a, b, rtol=rtol) for a, b in zip(one, other, strict=True))


AVERAGES = {
    "swa": {},
    "swa with buffers": {"use_buffers": True},
    "ema": {"avg_fn": get_ema_avg_fn(0.98), "use_buffers": True},
    "ema of all": {"multi_avg_fn": get_ema_multi_avg_fn(0.98), "use_buffers": True},
}


@pytest.mark.parametrize("name", [*AVERAGES, "composer"])
def test_an_average_of_equal_models_has_their_bounds_and_notices_the_end(name):
    model, x = network(), torch.randn(64, 8)
    average = copy.deepcopy(model) if name == "composer" else AveragedModel(model, **AVERAGES[name])
    for step in range(60):
        if step == 40:
            set_activation_bounds(model)
        model(x)  # always the same, so that any weighted mean is the same
        if name == "composer":
            compute_ema(model, average, 0.98)
        else:
            average.update_parameters(model)
    average = average if name == "composer" else average.module
    assert same(bounds(average), bounds(model))
    expected, found = model.eval()(5 * x), average.eval()(5 * x)
    assert not any(layer.calibrating for layer in (average[0], average[2]))
    assert (found - expected).norm() < 1e-4 * expected.norm()
    plain = network().eval()(5 * x)
    assert (plain - expected).norm() > 1e-2 * expected.norm(), "the comparison can fail"


def test_an_average_of_models_has_the_weighted_mean_of_what_they_measured():
    """In float64: the average of the sums over the average of their weights."""
    model, x = network(granularity="per_tensor"), torch.rand(64, 8)
    ema, high, share, mean_high, mean_share = copy.deepcopy(model), 0.0, 0.0, 0.0, 0.0
    for step in range(30):
        model(x * (1 + step))
        compute_ema(model, ema, 0.9)
        high, share = 0.9 * high + 0.1 * float(x.max()) * (1 + step), 0.9 * share + 0.1
        mean_high, mean_share = 0.9 * mean_high + 0.1 * high, 0.9 * mean_share + 0.1 * share
    assert float(bounds(model)[0][0]) == pytest.approx(high / share, rel=1e-5)
    assert float(bounds(ema)[0][0]) == pytest.approx(mean_high / mean_share, rel=1e-5)


def test_swapping_an_average_in_and_out_changes_nothing():
    model, x = network(), torch.randn(64, 8)
    model(x)
    average = EMAParameters(model)
    model(3 * x)
    before = bounds(model)
    average.swap_params(model)
    assert not same(bounds(model), before)
    average.swap_params(model)
    assert same(bounds(model), before, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_casts_leave_bounds_alone(dtype):
    model = network()
    model(torch.randn(64, 8))
    before = bounds(model)
    assert same(bounds(model.to(dtype)), before, rtol=0)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e12])
def test_a_batch_that_is_not_finite_is_left_out_and_counted(value):
    model, plain, x = network(), network(), torch.randn(64, 8)
    bad = x.clone()
    bad[3, 2] = value
    for step in range(5):
        plain(x * (1 + step))
        model(x * (1 + step))
        model(bad) if step == 2 else None
    assert same(bounds(model), bounds(plain), rtol=0)
    with pytest.warns(UserWarning, match="1 batches that weren't finite are left out of the bounds of 0"):
        set_activation_bounds(model)
    assert model.eval()(x).isfinite().all()


def test_nothing_finite_gives_no_bounds():
    model = network()
    model(torch.full((2, 8), torch.nan))
    with (
        pytest.warns(UserWarning, match="1 batches that weren't finite"),
        pytest.raises(SurgeryError, match="has seen a batch in train mode that was finite"),
    ):
        set_activation_bounds(model)


def test_an_empty_batch_is_no_batch():
    model = network()
    assert model(torch.empty(0, 8)).shape == (0, 4)
    assert weight(model[0]) == 0


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_forward_is_measured_once(reentrant):
    model, plain, x = network(), network(), torch.randn(64, 8)
    for step in range(3):
        entering = (x * (1 + step)).requires_grad_()
        checkpoint(model, entering, use_reentrant=reentrant).sum().backward()
        plain(entering).sum().backward()
    assert model[0].input_batches == plain[0].input_batches
    assert same(bounds(model), bounds(plain), rtol=0)


def test_minima_below_zero_give_a_layer_its_sign_back():
    """Tracing sees the default of `mode` alone; calibration sees what training does."""

    class Modes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x, mode="relu"):
            return self.b(self.a(x).relu() if mode == "relu" else self.a(x))

    model, other, x = Modes(), Modes(), torch.randn(64, 8)
    for each in (model, other):
        apply_quantization_aware_training(each, 8, 8, 8)
        assert each.b.unsigned
    model(x, "none")
    for _ in range(300):
        model(x)
    set_activation_bounds(model)
    assert not model.b.unsigned
    full = nn.functional.linear(model.a(x), model.b.weight, model.b.bias)
    error = (model(x, "none") - full).norm()
    model.b.unsigned = True
    assert error < 0.3 * (model(x, "none") - full).norm(), "clipped at the negative bound, but not at zero"
    model.b.unsigned = False
    other.load_state_dict(model.state_dict())
    assert not other.b.unsigned
    assert torch.equal(other(x, "none"), model(x, "none"))
    calibrated = Modes()
    apply_quantization_aware_training(calibrated, 8, 8, 8)
    calibrated(x)
    set_activation_bounds(calibrated)
    other.load_state_dict(calibrated.state_dict())
    assert other.b.unsigned, "the sign is that of what was loaded"


def test_a_state_of_version_0_1_is_loaded():
    """There, averages were float32 bits in int32, and `input_batches` counted batches."""
    model, other, x = network(), network(), torch.randn(64, 8)
    for _ in range(3):
        model(x)
    set_activation_bounds(model)
    state = model.state_dict()
    for path in "02":
        averages = state[f"{path}.input_averages"].float() * 2.0**-32
        state[f"{path}.input_averages"] = averages.view(torch.int32)
        state[f"{path}.input_batches"] = torch.tensor(3)
        state[f"{path}.calibrated"] = torch.tensor(True)
    other.load_state_dict(state)
    assert same(bounds(other), bounds(model), rtol=1e-6)
    assert other[0].calibrated == ONE
    assert not other[0].calibrating
