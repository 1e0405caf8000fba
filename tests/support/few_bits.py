"""Layers and a small network with few bits, and the float64 weights that are expected of them."""

import bitsandbytes_reference as reference
import grouped_reference
import torch
from torch import nn

from cadenza.algorithms import (
    apply_post_training_quantization,
    apply_quantization_aware_training,
    set_activation_bounds,
)

TABLES = {"nf4": reference.NF4, "fp4": reference.float4()}


def matrix(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(name, shape=(33, 65), dtype=torch.float32, bias=True, **options):
    """A quantized linear layer and the float64 weight that the reference unpacks from the same numbers."""
    linear = nn.Linear(*shape[::-1], bias=bias).to(dtype)
    with torch.no_grad():
        linear.weight.copy_(matrix(shape, dtype))
    weight = linear.weight.detach().clone()
    apply_post_training_quantization(linear, name, only=["*"], **options)
    return linear, expected_weight(name, weight, linear)


def expected_weight(name, weight, linear):
    if name in grouped_reference.GROUP:
        return grouped_reference.packed(name, weight)[-1]
    if name == "int8":
        codes, absmax = reference.rowwise_int8(weight)
        return codes.double() * absmax.double()[:, None] / 127
    table = TABLES[name[:3]]
    codes, absmax = reference.four_bit(weight, table)
    if name.endswith("dq"):
        _, top, mean = reference.nested(absmax)
        small = linear.state_dict()[f"{name[:3]}_absmax"]  # see test_four_bit_codes_and_statistics
        absmax = reference.dynamic8()[small.long()] * top.repeat_interleave(256)[: len(small)] + mean
    return reference.unpacked(codes, absmax, table, weight.shape)


def trained(weight_bits=4, activation_bits=4, granularity="per_channel", seed=0):
    """A small network that has calibrated and taken some steps since."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, stride=2, padding=1, groups=1),
        nn.Flatten(),
        nn.Linear(45, 7),
    )
    apply_quantization_aware_training(model, weight_bits, activation_bits, None, granularity)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(6):
        model(torch.randn(4, 3, 7, 7)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 2 and activation_bits is not None:
            set_activation_bounds(model)
    return model.eval()
