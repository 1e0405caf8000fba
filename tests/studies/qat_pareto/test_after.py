"""Quantization after training, as the study does it."""

import pytest
import torch
from torch import nn

from cadenza.quantization.training.averages import weight
from cadenza.studies.qat_pareto import after


def test_calibration_on_batches():
    """Batch norm and dropout stay as in evaluation, and first and last have edge_bits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Dropout(), nn.Conv1d(3, 3, 1), nn.Flatten()
    )
    model.append(nn.Linear(15, 2))
    norm = {name: value.clone() for name, value in model[1].state_dict().items()}
    bits = {"weight_bits": 2, "activation_bits": 4, "edge_bits": 5, "granularity": "per_tensor"}
    after.apply_quantized(model, {**bits, "calibrate_until": "7ba"})
    after.calibrate(model, [torch.full((4, 2, 5), float(n)) for n in range(20)])
    assert all(torch.equal(norm[name], value) for name, value in model[1].state_dict().items())
    layers = [model[0], model[3], model[5]]
    assert [(layer.weight_bits, layer.activation_bits) for layer in layers] == [(5, 5), (2, 4), (5, 5)]
    assert [float(weight(layer)) for layer in layers] == pytest.approx([1 - 0.9**20] * 3)
    assert not any(layer.calibrating for layer in layers)
    assert model[0].averages.shape == (2, 1), "one bound a tensor"
    assert float(model[0].averages[0]) == pytest.approx(sum(0.1 * 0.9 ** (19 - n) * n for n in range(20)))
