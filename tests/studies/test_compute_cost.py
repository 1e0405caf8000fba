"""What networks cost: the published figures of ResNets, and layers against plain counts."""

import math

import pytest
import torch
from families import build
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.studies import compute_cost
from cadenza.studies.compute_cost import layer_costs, totals


@pytest.fixture(scope="module")
def resnet50():
    return compute_cost.build("resnet50", 224, 128, 1.0)


def ratios(found):
    return [found["quadratic_ratio"], found["linear_ratio"], found["memory_ratio"]]


def test_resnet50_in_16_bits(resnet50):
    model, image = resnet50
    found = totals(layer_costs(model, image))
    assert found["macs"] == 4089184256
    assert found["quadratic"] == 1046831169536
    assert found["memory_bits"] == 408046592
    assert ratios(found) == [1, 1, 1]


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        ((8, 8, None), [0.25, 0.5, 0.5]),
        ((4, 4, None), [0.0625, 0.25, 0.25]),
        ((4, 4, 8), [0.0680, 0.2573, 0.2702]),
        ((4, 2, None), [0.03125, 0.25, 0.25]),
        ((2, 2, None), [0.015625, 0.25, 0.125]),
        ((4, None, None), [0.25, 1, 0.25]),
        ((None, 4, None), [0.25, 1, 1]),
    ],
)
def test_resnet50_quantized(bits, expected, resnet50):
    model, image = resnet50
    report = apply_quantization_aware_training(model, *bits)
    found = totals(layer_costs(model, image))
    report.undo()
    assert ratios(found) == pytest.approx(expected, abs=5e-5)
    assert found["quadratic"] == pytest.approx(found["quadratic_ratio"] * 1046831169536)
    assert found["macs"] == 4089184256


DEPTHS = {
    "resnet18": (1.814, 0.2663),
    "resnet34": (3.664, 0.2581),
    "resnet101": (7.801, 0.2538),
    "resnet152": (11.514, 0.2526),
}


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_other_depths(depth):
    billions, ratio = DEPTHS[depth]
    model, image = compute_cost.build(depth, 224, 128, 1.0)
    apply_quantization_aware_training(model, 4, 4, 8)
    found = totals(layer_costs(model, image))
    assert round(found["macs"] / 1e9, 3) == billions
    assert round(found["linear_ratio"], 4) == ratio


@pytest.mark.parametrize(
    ("depth", "known", "more"), [("resnet29", 4089184256, -7), ("resnet200", 11513626624, 16)]
)
def test_depths_that_torchvision_has_not(depth, known, more):
    """29 is 50 without 1 + 2 + 3 + 1 blocks, and 200 is 152 with 16 more.

    A block that doesn't project has 4 + 9 + 4 times c^2 weights for c filters, the same MACs in each stage.
    """
    model, image = compute_cost.build(depth, 224, 128, 1.0)
    found = totals(layer_costs(model, image))["macs"]
    assert found == known + more * 17 * 64**2 * 56**2


def plain_macs(layer, size):
    """Multiplications of a convolution over an example of this size, by its definition."""
    places = [
        (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for n, pad, dilation, kernel, stride in zip(
            size, layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]
    taps = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return math.prod(places) * layer.out_channels * taps


LAYERS = {
    "plain": (nn.Conv2d(3, 4, 3), (9, 8)),
    "padded": (nn.Conv2d(3, 4, (3, 1), padding=(2, 0)), (9, 8)),
    "strided": (nn.Conv2d(3, 4, 3, stride=(2, 3)), (9, 8)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=(1, 3), padding=1), (9, 8)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (9, 8)),
    "depthwise": (nn.Conv2d(6, 12, 3, groups=6, bias=False), (5, 5)),
    "1d": (nn.Conv1d(3, 5, 4, stride=2), (11,)),
    "3d": (nn.Conv3d(2, 3, (1, 2, 3), padding=1), (4, 5, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_convolutions_equal_a_plain_count(kind):
    layer, size = LAYERS[kind]
    (found,) = layer_costs(nn.Sequential(layer), torch.zeros(1, layer.in_channels, *size))
    assert (found.path, found.macs) == ("0", plain_macs(layer, size))
    assert found.weights == layer.weight.numel()
    assert (found.weight_bits, found.activation_bits) == (16, 16)


def test_a_linear_layer_counts_at_each_place():
    (found,) = layer_costs(nn.Sequential(nn.Linear(5, 3)), torch.zeros(1, 7, 5))
    assert (found.macs, found.weights) == (7 * 5 * 3, 15)


class Shared(nn.Module):
    """One layer that is called twice, one that isn't called, and two that share a weight."""

    def __init__(self):
        super().__init__()
        self.twice, self.never = nn.Linear(4, 4), nn.Linear(4, 9)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(self.twice(self.twice(x))))


def test_a_weight_that_is_used_twice_is_stored_once():
    costs = {cost.path: (cost.macs, cost.weights) for cost in layer_costs(Shared(), torch.zeros(1, 4))}
    assert costs == {"twice": (32, 16), "one": (16, 16), "other": (16, 0)}
    found = totals(layer_costs(Shared(), torch.zeros(1, 4)))
    assert (found["macs"], found["memory_bits"]) == (64, 32 * 16)


def test_weights_that_are_made_anew_in_each_call_are_not_taken_for_shared():
    normed = [torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(4)]
    costs = layer_costs(nn.Sequential(*normed), torch.zeros(1, 4))
    assert [cost.weights for cost in costs] == [16] * 4


def test_the_multiplier_takes_the_wider_of_both():
    layers = [nn.Linear(4, 4) for _ in range(5)]
    model = nn.Sequential(*layers)
    for layer, bits in zip(layers, [(2, 3), (4, 5), (8, 2), (8, None), (None, 4)], strict=True):
        layer.weight_bits, layer.activation_bits = bits
    costs = layer_costs(model, torch.zeros(1, 4))
    assert [cost.width for cost in costs] == [4, 8, 8, 16, 16]
    found = totals(costs)
    assert found["linear"] == 16 * (4 + 8 + 8 + 16 + 16)
    assert found["quadratic"] == 16 * (6 + 20 + 16 + 8 * 16 + 16 * 4)
    assert found["memory_bits"] == 16 * (2 + 4 + 8 + 8 + 16)


GPT2 = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128)  # weights of two layers of attention and feed-forward


def test_transformers_conv1d():
    """Its weight is (inputs, outputs): c_attn and the feed-forward tell the other way round."""
    model, ids = build("gpt2"), torch.zeros(1, 8, dtype=torch.long)
    costs = layer_costs(model, ids)
    by_layer = {cost.path.removeprefix("transformer.h.0."): cost.macs for cost in costs}
    assert by_layer["attn.c_attn"] == 8 * 32 * 96
    assert by_layer["mlp.c_proj"] == 8 * 128 * 32
    assert by_layer["lm_head"] == 8 * 32 * 90
    found = totals(costs)
    assert found["macs"] == 8 * (GPT2 + 32 * 90)
    assert found["memory_bits"] == 16 * (GPT2 + 32 * 90), "the head's weight is that of the embedding"


def hooks(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize("raises", [False, True])
def test_the_model_is_left_as_it_was(raises):
    last = nn.Conv2d(5 if raises else 4, 2, 1)  # of five channels raises in mid-model
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), last)
    model[1].eval()  # a frozen norm

    def own(*_):
        return None

    model[0].register_forward_hook(own)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if raises:
        with pytest.raises(RuntimeError, match="to have 5 channels"):
            layer_costs(model, torch.ones(1, 3, 4, 4))
    else:
        assert len(layer_costs(model, torch.ones(1, 3, 4, 4))) == 2
    assert hooks(model) == [own]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_measured_in_evaluation_without_gradients():
    """Batch norm of one example can't be trained, and dropout would do no harm here."""
    seen = []
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    model.register_forward_hook(lambda module, _, out: seen.append((module.training, out.requires_grad)))
    layer_costs(model, torch.zeros(1, 3))
    assert seen == [(False, False)]
