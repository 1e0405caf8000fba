"""Files of integers: their codes are `convert`'s, and ONNX Runtime computes what a plain reference does."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("onnxruntime", reason="the extra `onnx` isn't installed")
if not hasattr(torch.onnx, "ops"):
    pytest.skip(f"torch {torch.__version__} can't put QuantizeLinear into a graph", allow_module_level=True)

import onnx
from onnx import numpy_helper

from cadenza.algorithms import (
    apply_alibi,
    apply_glu,
    apply_quantization_aware_training,
    apply_unpadding,
    convert,
    quantize_after_training,
)
from cadenza.quantization import export_onnx
from cadenza.quantization.deployed import runtime
from cadenza.quantization.training.calibration import calibrate
from cadenza.surgery import SurgeryError

pytestmark = pytest.mark.slow


class Block(nn.Module):
    """Convolutions with batch norms, odd sizes, groups, a stride, a pooling, and a residual sum."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 6, (3, 1), padding=(1, 0), groups=3, bias=False)
        self.last = nn.Conv2d(6, 6, 3, padding=1, bias=False, dilation=1)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(2, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.norm1(self.first(x))))
        inner = self.relu(self.norm2(self.inner(x)))
        x = self.relu(self.norm3(self.last(inner)) + x)
        return self.head(x.mean((2, 3)))


def block(weight_bits, activation_bits, granularity="per_tensor", batches=None):
    torch.manual_seed(3)
    model = Block()
    for norm in (model.norm1, model.norm2, model.norm3):
        norm.weight.data.normal_()  # some are negative
        norm.bias.data.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.norm2.weight.data[1] = 0
    x = torch.randn(4, 3, 9, 7)
    quantize_after_training(model, batches or [x], weight_bits, activation_bits, None, granularity)
    return model.eval(), x


def plain(layer, x):
    """The quantized layer in float64, from the integers that `convert` gives."""
    alone = convert(nn.Sequential(layer))
    scale = alone["0.weight_scale"].double().view(-1, *[1] * (layer.weight.ndim - 1))
    bound = layer.weight.detach().double().abs()
    weight = (bound / scale + 0.5).floor() * layer.weight.detach().sign() * scale
    step = alone["0.input_scale"].double()
    step = step.view(-1, *[1] * (layer.weight.ndim - 2))
    most = 2 ** (layer.activation_bits - 1) - 1
    if layer.unsigned:
        x = (x / step).floor().clamp(0, 2**layer.activation_bits - 1) * step
    else:
        x = (x / step + 0.5).floor().clamp(-most, most) * step
    bias = None if layer.bias is None else layer.bias.detach().double()
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def plain_norm(norm, x):
    gamma, beta, mean, variance = (
        t.detach().double().view(-1, 1, 1)
        for t in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return (x - mean) / (variance + norm.eps).sqrt() * gamma + beta


def plain_block(model, x):
    x = F.max_pool2d(plain_norm(model.norm1, plain(model.first, x.double())).relu(), 2, 1)
    inner = plain_norm(model.norm2, plain(model.inner, x)).relu()
    x = (plain_norm(model.norm3, plain(model.last, inner)) + x).relu()
    return plain(model.head, x.mean((2, 3)))


def initializers(path):
    graph = onnx.load(str(path)).graph
    return {tensor.name: tensor for tensor in graph.initializer}


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 4), (3, 5)])
def test_a_residual_network_computes_what_the_reference_does(tmp_path, weight_bits, activation_bits):
    model, x = block(weight_bits, activation_bits)
    before = copy.deepcopy(model.state_dict())
    found = export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.2)
    assert found.quantized == 4
    for size in (1, 3, 4):  # another batch than the example's
        inputs = x[:size].flip(3).contiguous()
        ours = runtime.outputs(tmp_path / "net.onnx", {"input": inputs.numpy()})["output"]
        expected = plain_block(model, inputs).numpy()
        # A number at the border of two codes may take either: one code of the head's input at the most.
        step = float(model.head.input_scale() * model.head.weight.abs().max())
        assert np.abs(ours - expected).max() <= 1.5 * step
        assert np.median(np.abs(ours - expected)) < 1e-3 * np.abs(expected).max()
    for name, tensor in before.items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(8, 8), (4, 4)])
def test_learned_scales_round_to_the_nearest_code(tmp_path, weight_bits, activation_bits):
    """Rounded down, each unsigned input would be half a scale less on average."""
    torch.manual_seed(4)
    model, x = Block().eval(), torch.randn(4, 3, 9, 7)
    apply_quantization_aware_training(
        model, weight_bits, activation_bits, None, granularity="per_tensor", scales="learned"
    )
    calibrate(model, [x])
    for layer in (model.first, model.inner, model.last, model.head):
        layer.input_scale_factor.data.mul_(0.8)  # as training would
        layer.learned_weight_scale.data.mul_(1.1)
    export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.2)
    ours = runtime.outputs(tmp_path / "net.onnx", {"input": x.numpy()})["output"]
    expected = model(x).detach().numpy()
    assert np.median(np.abs(ours - expected)) < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_in_the_file_are_those_of_convert(tmp_path, bits):
    model, x = block(bits, bits)
    export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.2)
    stored, integers = initializers(tmp_path / "net.onnx"), convert(model)
    kind = onnx.TensorProto.INT4 if bits == 4 else onnx.TensorProto.INT8
    assert sum(t.data_type == kind and len(t.dims) > 1 for t in stored.values()) == 4
    floats = [t for t in stored.values() if t.data_type == onnx.TensorProto.FLOAT]
    assert all(len(t.dims) < 2 for t in floats), "no weight is left in floating point"
    signs = {"first": model.norm1, "inner": model.norm2, "last": model.norm3, "head": None}
    for layer, norm in signs.items():
        (tensor,) = [t for name, t in stored.items() if f"{layer}.codes" in name and t.data_type == kind]
        ours = numpy_helper.to_array(tensor).astype(np.int64)
        codes = integers[f"{layer}.weight"]
        if bits == 4:
            flat = torch.stack([codes & 15, codes >> 4], 1).flatten().to(torch.int64) - 8
            codes = flat[: ours.size].view_as(model.get_submodule(layer).weight)
        codes = codes.numpy().astype(np.int64)
        sign = 1 if norm is None else np.sign(norm.weight.detach().numpy()).reshape(-1, 1, 1, 1)
        assert np.array_equal(ours, codes.T if norm is None else codes * sign)


def test_products_run_in_integers_where_one_scale_is_of_the_whole_input(tmp_path):
    model, x = block(8, 8)
    assert export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.2).products["QLinearConv"] >= 1
    model, x = block(8, 8, "per_channel")
    found = export_onnx(model, tmp_path / "net.onnx", x, tolerance=0.2)
    assert found.integer_products == 0
    assert "granularity=per_tensor" in found.notes[0]


def test_sums_in_8_bits_let_all_convolutions_run_in_integers(tmp_path):
    model, x = block(8, 8)
    exact = export_onnx(model, tmp_path / "exact.onnx", x, tolerance=0.2)
    rounded = export_onnx(model, tmp_path / "rounded.onnx", x, tolerance=0.2, sums="int8")
    assert rounded.products["QLinearConv"] == 3 > exact.products["QLinearConv"]
    assert rounded.difference > 0
    with pytest.raises(SurgeryError, match="sums is 'int4'; it must be float or int8"):
        export_onnx(model, tmp_path / "net.onnx", x, sums="int4")


def encoder():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 37, "vocab_size": 61}
    return BertForSequenceClassification(BertConfig(num_hidden_layers=2, **sizes)).eval()


def words():
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:] = 0
    return {"input_ids": torch.randint(0, 61, (3, 7)), "attention_mask": mask}


@pytest.mark.parametrize("surgery", [None, apply_alibi, apply_glu])
def test_an_encoder_with_masks_of_any_length(tmp_path, surgery):
    model, batch = encoder(), words()
    if surgery is not None:
        surgery(model)
    quantize_after_training(model, [batch])
    found = export_onnx(model.eval(), tmp_path / "bert.onnx", batch)
    assert found.quantized == len([m for m in model.modules() if hasattr(m, "weight_bits")])
    assert found.products["MatMulIntegerToFloat"] >= 12
    other = {name: torch.cat([x, x], 1) for name, x in batch.items()}
    with torch.no_grad():
        expected = model(**other).logits.numpy()
    ours = runtime.outputs(tmp_path / "bert.onnx", {name: x.numpy() for name, x in other.items()})["logits"]
    assert np.abs(ours - expected).max() < 0.02 * np.abs(expected).max()


def test_outputs_that_differ_leave_no_file(tmp_path, monkeypatch):
    model, x = block(8, 8)
    true = runtime.outputs
    monkeypatch.setattr(runtime, "outputs", lambda *args: {name: y + 1 for name, y in true(*args).items()})
    with pytest.raises(SurgeryError, match=r"outputs of ONNX Runtime differ by .* isn't written"):
        export_onnx(model, tmp_path / "net.onnx", x)
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(tmp_path):
    from cadenza.models import resnet

    file, x = tmp_path / "net.onnx", torch.randn(2, 4)

    def refused(model, match, path=file):
        with pytest.raises(SurgeryError, match=match) as error:
            export_onnx(model, path, x)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []

    model = nn.Sequential(nn.Linear(4, 3))
    refused(model, "no layer is quantized")
    apply_quantization_aware_training(model, granularity="per_tensor")
    refused(model, "0 has no bounds yet")
    refused(model, r"must end with \.onnx", tmp_path / "net.pt")
    refused(model, "is not a folder", tmp_path / "no" / "net.onnx")
    refused(model.double(), "float64 on cpu; move the model")
    refused(resnet("resnet10", 0.125, 10, 1, "small"), "pass the network in it")
    other = encoder()
    apply_unpadding(other)
    quantize_after_training(other, [words()])
    refused(other, "Unpadding changed the model")
