"""Learned scales: values and gradients against LSQ's equations in float64, and where their parameters go."""

import copy
import math

import pytest
import torch
from composer import Trainer
from quantized_reference import LAYERS, axes_but, made, plain_forward
from torch import nn

from cadenza.algorithms import (
    apply_quantization_aware_training,
    check_converted,
    convert,
    load_converted,
    set_activation_bounds,
)
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.models import classifier
from cadenza.quantization.training.fake_quantize import EPSILON
from cadenza.quantization.training.learned_scales import learned_scale
from cadenza.surgery import SurgeryError

LEARNED = {"scales": "learned"}


def plain(x, scale, low, high):
    """Equation 1 and 2."""
    return torch.floor((x / scale).clamp(low, high) + 0.5) * scale


def plain_gradients(x, scale, low, high, grad, count):
    """Equation 3 and 5, and the factor of section 2.2; the scale's gradient has the shape of the scale."""
    scaled = x / scale
    inside = (scaled > low) & (scaled < high)
    each = torch.where(inside, torch.floor(scaled + 0.5) - scaled, scaled.clamp(low, high))
    over = [d for d in range(x.ndim) if scale.shape[d] == 1]
    return grad * inside, (grad * each).sum(over, keepdim=True) / math.sqrt(count * high)


def features(layer, x, per_channel):
    """The numbers of one example that share a scale."""
    channel = -1 if isinstance(layer, nn.Linear) else 1
    per = x.shape[channel] if per_channel else 1
    return x.shape[-1] / per if isinstance(layer, nn.Linear) else x[0].numel() / per


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize(("unsigned", "bits"), [(False, 2), (True, 3), (False, 8), (True, 4)])
def test_a_layer_equals_its_equations(kind, granularity, unsigned, bits):
    model, x = made(kind)
    stock, x, per_channel = copy.deepcopy(model[0]), x.abs() if unsigned else x, granularity == "per_channel"
    apply_quantization_aware_training(model, bits, bits, None, granularity, **LEARNED)
    layer, most = model[0], 2 ** (bits - 1) - 1
    layer.never_negative = layer.unsigned = unsigned
    model(x)
    set_activation_bounds(model)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    over = axes_but(x, axis) if per_channel else list(range(x.ndim))
    with torch.no_grad():  # away from where they start
        layer.learned_weight_scale.mul_(torch.linspace(0.5, 1.5, len(layer.learned_weight_scale)))
        layer.input_scale_factor.fill_(0.7)
    low, high = (0, 2**bits - 1) if unsigned else (-most, most)
    base = (x.abs().amax(over, keepdim=True) + EPSILON) / high
    weight, scale = stock.weight.detach(), layer.learned_weight_scale.detach()
    scale = scale.view(-1, *[1] * (weight.ndim - 1))
    quantized = plain(weight, scale, -most, most).requires_grad_()
    entering = plain(x, 0.7 * base, low, high).requires_grad_()
    expected = plain_forward(stock, quantized, entering)
    leaf = x.clone().requires_grad_()
    out = model(leaf)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    out.backward(grad)
    expected.backward(grad)
    of_weight, of_scale = plain_gradients(weight, scale, -most, most, quantized.grad, weight[0].numel())
    count = features(layer, x, per_channel)
    of_x, of_input = plain_gradients(x, 0.7 * base, low, high, entering.grad, count)
    of_factor = (of_input / base).flatten()  # so a step moves base * factor as it moves LSQ's scale
    pairs = [(out, expected), (leaf.grad, of_x), (layer.weight.grad, of_weight)]
    pairs += [(layer.learned_weight_scale.grad, of_scale.flatten())]
    pairs += [(layer.input_scale_factor.grad, of_factor)]
    # Averages are float32, so a number at the edge of two codes may fall on either side.
    for number, (ours, theirs) in enumerate(pairs):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), number
    assert of_factor.abs().min() > 0
    assert (leaf.grad == 0).any(), "something was clipped"


def test_where_weights_start():
    model, _ = made("linear")
    apply_quantization_aware_training(model, 4, None, None, **LEARNED)
    weight = model[0].weight.detach()
    expected = 2 * weight.abs().mean(1) / math.sqrt(7)
    assert torch.allclose(model[0].learned_weight_scale, expected, rtol=1e-5)
    assert model[0].weight_scale().shape == (5, 1)
    assert set(dict(model.named_parameters())) == {"0.weight", "0.bias", "0.learned_weight_scale"}


def test_a_scale_stays_positive_and_can_come_back():
    parameter = torch.tensor([-0.5, 0.0, 0.3], requires_grad=True)
    scale = learned_scale(parameter, 2.0)
    assert scale.tolist() == pytest.approx([2 * EPSILON, 2 * EPSILON, 0.6])
    scale.sum().backward()
    assert parameter.grad.tolist() == [0.5, 0.5, 0.5]


def trained(steps=40, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    apply_quantization_aware_training(model, 3, 3, 3, optimizers=optimizer, **options)
    x, y = torch.randn(64, 6), torch.randint(3, (64,))
    for step in range(steps):
        if step == 5:
            set_activation_bounds(model)
            model[2].never_negative = model[2].unsigned = True
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_they_train_and_their_integers_give_the_same_outputs(dtype):
    model, x = trained(**LEARNED)
    names = ("learned_weight_scale", "input_scale_factor")
    start = trained(5, **LEARNED)[0].state_dict()
    for key, value in model.state_dict().items():
        if key.endswith(names):
            assert not torch.equal(value, start[key]), key
    model, x = model.to(dtype).eval(), x.to(dtype)
    integers = convert(model)
    assert integers["2.weight_scale"].dtype == integers["2.input_scale"].dtype == torch.float32
    assert check_converted(model, integers, x) <= 1e-6
    other = trained(1, **LEARNED)[0].to(dtype)
    load_converted(other, integers)
    assert (other.eval()(x) - model(x)).abs().max() <= 1e-6 * model(x).abs().max()
    scale = integers["2.input_scale"].double()
    entering = model[1](model[0](x))
    rounded = (entering.double() / scale + 0.5).floor().clamp(0, 7) * scale
    assert not model[2].rounds_down
    expected = nn.functional.linear(rounded, _weight(integers, model).double(), model[2].bias.double())
    assert torch.allclose(model(x).double(), expected, rtol=0, atol=2 * torch.finfo(dtype).eps + 1e-6)


def _weight(integers, model):
    from cadenza.quantization.training.integers import unpack

    codes = unpack(integers["2.weight"], tuple(model[2].weight.shape))
    return (codes * integers["2.weight_scale"].view(-1, 1)).to(model[2].weight.dtype)


def test_calibrated_ones_add_nothing():
    model, _ = trained(1)
    assert not any("learned" in key or "factor" in key for key in model.state_dict())
    assert model[2].rounds_down
    assert len(list(model.parameters())) == 4


def test_a_state_dict_keeps_them():
    model, x = trained(**LEARNED)
    other, _ = trained(1, **LEARNED)
    other.load_state_dict(model.state_dict())
    other[2].never_negative = other[2].unsigned = True
    assert torch.equal(other(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_a_frozen_layer_has_frozen_scales_and_the_undo_removes_them():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
    report = apply_quantization_aware_training(model, optimizers=optimizer, **LEARNED)
    assert not model[0].learned_weight_scale.requires_grad
    assert len(optimizer.param_groups[0]["params"]) == 4
    report.undo()
    assert len(optimizer.param_groups[0]["params"]) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_they_join_what_has_no_decay():
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4))
    groups = [[p for p in model.parameters() if (p.ndim > 1) == matrix] for matrix in (True, False)]
    optimizer = torch.optim.SGD(
        [{"params": g, "weight_decay": float(not n)} for n, g in enumerate(groups)], 0.1
    )
    apply_quantization_aware_training(model, optimizers=optimizer, **LEARNED)
    decayed, others = (group["params"] for group in optimizer.param_groups)
    assert all(p.ndim > 1 for p in decayed)
    assert len(decayed) == 2
    assert len(others) == 4 + 4


def test_while_calibrating_the_factor_has_a_gradient_of_zeros():
    """DDP raises for a parameter without a gradient."""
    model, x = made("conv2d", torch.float32)
    apply_quantization_aware_training(model, **LEARNED)
    model(x).sum().backward()
    assert model[0].input_scale_factor.grad.eq(0).all()
    assert model[0].learned_weight_scale.grad.ne(0).any()


def test_a_trainer_trains_them():
    torch.manual_seed(0)
    model = classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), 3)
    data = [(torch.randn(5, 1, 4, 4), torch.randint(3, (5,))) for _ in range(6)]
    Trainer(
        model=model,
        train_dataloader=torch.utils.data.DataLoader(data, batch_size=None),
        optimizers=torch.optim.AdamW(model.parameters(), 0.01),
        algorithms=[QuantizationAwareTraining(calibrate_until="2ba", scales="learned")],
        max_duration="1ep",
        progress_bar=False,
        device_train_microbatch_size=5,
    ).fit()
    factors = [m.input_scale_factor for m in model.modules() if hasattr(m, "input_scale_factor")]
    assert len(factors) == 2
    assert all((factor != 1).any() for factor in factors)


def test_half_an_edge_gradient_is_of_calibrated_scales():
    with pytest.raises(SurgeryError, match=r"edge_gradient 'half' is AQT's.*leave edge_gradient at 'full'"):
        QuantizationAwareTraining(edge_gradient="half", scales="learned")
