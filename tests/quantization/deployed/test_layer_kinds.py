"""Kinds of layers in ONNX files: each computes what the quantized network does, from codes in the file."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnxruntime", reason="the extra `onnx` isn't installed")
if not hasattr(torch.onnx, "ops"):
    pytest.skip(f"torch {torch.__version__} can't put QuantizeLinear into a graph", allow_module_level=True)

import onnx

from cadenza.algorithms import quantize_after_training
from cadenza.quantization import export_onnx
from cadenza.quantization.deployed import runtime

pytestmark = pytest.mark.slow

KINDS = {
    "one axis": (nn.Conv1d(4, 5, 3, padding=1), (3, 4, 11)),
    "three axes": (nn.Conv3d(2, 3, (1, 3, 2)), (3, 2, 4, 5, 6)),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), (3, 6, 7, 7)),
    "strided and dilated": (nn.Conv2d(3, 5, 3, stride=(2, 1), dilation=(1, 2)), (3, 3, 9, 9)),
    "reflected": (nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), (3, 3, 7, 7)),
    "same": (nn.Conv2d(3, 5, 4, padding="same"), (3, 3, 7, 7)),
    "linear on sequences": (nn.Linear(6, 7), (3, 5, 6)),
    "linear on rows": (nn.Linear(6, 7, bias=False), (3, 6)),
}


def codes_of(path):
    """The weights in the file that are integers of 8 or 4 bits, of more than one dimension."""
    kinds = onnx.TensorProto.INT8, onnx.TensorProto.INT4
    return [t for t in onnx.load(str(path)).graph.initializer if t.data_type in kinds and len(t.dims) > 1]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_computes_what_it_did(kind, bits, tmp_path):
    layer, shape = KINDS[kind]
    torch.manual_seed(1)
    x, model = torch.randn(shape), nn.Sequential(nn.Identity(), copy.deepcopy(layer)).eval()
    before = model(x).detach()
    quantize_after_training(model, [x], bits, bits, None)
    export_onnx(model, tmp_path / "layer.onnx", x, tolerance=0.01)
    assert len(codes_of(tmp_path / "layer.onnx")) == 1, "the weight is stored as codes"
    found = runtime.outputs(tmp_path / "layer.onnx", {"input": x[:2].numpy()})["output"]
    expected = model(x[:2]).detach().numpy()
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    assert np.abs(found - before[:2].numpy()).max() > 1e-4 * np.abs(expected).max(), "it is quantized"


def test_a_bias_beyond_32_bits_is_added_afterwards(tmp_path):
    """In units of tiny products it doesn't fit; it must not wrap around."""
    torch.manual_seed(1)
    conv = nn.Conv2d(2, 3, 3)
    conv.weight.data.mul_(1e-6)
    conv.bias.data.copy_(torch.tensor([5.0, -7.0, 1e-7]))
    model, x = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(3, 2, 1)).eval(), 1e-3 * torch.randn(2, 2, 6, 6)
    quantize_after_training(model, [x], 8, 8, None)
    export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.02)
    found = runtime.outputs(tmp_path / "net.onnx", {"input": x.numpy()})["output"]
    expected = model(x).detach().numpy()
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    biases = [t for t in onnx.load(str(tmp_path / "net.onnx")).graph.initializer if "bias" in t.name]
    assert any(t.data_type == onnx.TensorProto.FLOAT for t in biases), "one is added in floating point"
