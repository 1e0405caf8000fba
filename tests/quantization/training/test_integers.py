"""Integer weights and scales: right by integer arithmetic alone, loaded back, refused where unfit."""

import pytest
import torch
import torch.nn.functional as F
from families import batch, build
from few_bits import trained
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.training.integers import check_converted, convert, load_converted, unpack
from cadenza.surgery import CheckpointError, SurgeryError


def in_integers(state, x, bits):
    """The same network on int64 codes alone: integer products and sums, one scale a layer and channel."""
    for path, shape in (("0", (6, 3, 3, 3)), ("2", (5, 6, 3, 3)), ("4", (7, 45))):
        scale, unsigned = state[f"{path}.input_scale"].double(), bool(state[f"{path}.input_unsigned"])
        most = 2**bits - 1 if unsigned else 2 ** (bits - 1) - 1
        whole = x / scale if unsigned else x / scale + 0.5
        entering = whole.floor().clamp(0 if unsigned else -most, most).long()
        weight = state[f"{path}.weight"]
        weight = (unpack(weight, shape) if bits <= 4 else weight).long()
        out = product(path, entering, weight)
        each = (-1, 1, 1) if len(shape) == 4 else (-1,)
        x = out * (scale * state[f"{path}.weight_scale"].double()).view(each) + state[
            f"{path}.bias"
        ].double().view(each)
        x = F.relu(x) if path == "0" else x.flatten(1) if path == "2" else x
    return x


def product(path, entering, weight):
    """Convolution and matrix product in int64."""
    if path == "4":
        return entering @ weight.T
    padded = F.pad(entering, (1, 1, 1, 1)) if path == "2" else entering
    windows = padded.unfold(2, 3, 2 if path == "2" else 1).unfold(3, 3, 2 if path == "2" else 1)
    return torch.einsum("nchwij,ocij->nohw", windows, weight)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_integer_arithmetic_gives_the_outputs_that_were_trained(bits):
    model = trained(bits, bits, "per_tensor").double()
    x = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    expected = model(x).detach()
    found = in_integers(convert(model), x, bits)
    # Scales are float32: on the edge of two codes their rounding may decide.
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize(("weight", "activation"), [(2, 2), (3, 8), (4, 4), (8, 8), (4, None), (None, 4)])
def test_a_converted_network_computes_the_same(weight, activation, granularity):
    model, other = trained(weight, activation, granularity), trained(weight, activation, granularity, seed=1)
    x = torch.randn(5, 3, 7, 7)
    integers = convert(model)
    assert check_converted(model, integers, x) < 1e-5
    assert not torch.allclose(model(x), other(x), rtol=1e-2)
    load_converted(other, integers)
    assert torch.allclose(model(x), other(x), rtol=1e-4, atol=1e-6)
    integers["0.bias"] += 1
    with pytest.raises(SurgeryError, match="the converted network is off by"):
        check_converted(model, integers, x)


def test_sizes_and_kinds():
    eight, four, three = (convert(trained(bits)) for bits in (8, 4, 3))
    assert (eight["2.weight"].dtype, eight["2.weight"].shape) == (torch.int8, (5, 6, 3, 3))
    assert (four["2.weight"].dtype, four["2.weight"].nbytes) == (torch.uint8, 5 * 6 * 9 // 2)
    assert three["4.weight"].nbytes == -(-7 * 45 // 2), "an odd number of codes takes half a byte more"
    assert unpack(three["4.weight"], (7, 45)).abs().max() == 3
    assert four["0.input_scale"].shape == (3,)
    assert not four["0.input_unsigned"]
    assert four["2.input_unsigned"]


def test_integers_survive_a_file(tmp_path):
    from safetensors.torch import load_file, save_file

    model = trained()
    save_file(convert(model), tmp_path / "integers.safetensors")
    assert (
        check_converted(model, load_file(tmp_path / "integers.safetensors"), torch.randn(2, 3, 7, 7)) < 1e-5
    )


def test_a_tied_head_is_loaded_as_one_of_its_own():
    model = build("bert", tie_word_embeddings=True).train()
    apply_quantization_aware_training(model, 8, 8)
    inputs = batch("bert")
    model(**inputs)
    set_activation_bounds(model)
    integers = convert(model)
    words = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(integers[words], model.state_dict()[words])
    assert integers["cls.predictions.decoder.weight"].dtype == torch.int8
    assert check_converted(model, integers, inputs["input_ids"], inputs["attention_mask"]) < 1e-4
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_what_does_not_fit_is_refused_and_changes_nothing():
    model = trained(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for integers, said in (
        (convert(trained(8)), "0.weight is torch.int8"),
        (convert(trained(4, None)), "the integers are of another network: 0.input_averages doesn't fit"),
        (model.state_dict(), "0: weight and weight_scale in the integers don't fit"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_converted(model, integers)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    with pytest.raises(SurgeryError, match="Linear has no layer with quantization_aware_training"):
        convert(nn.Linear(2, 2))
    fresh = nn.Sequential(nn.Linear(3, 3))
    apply_quantization_aware_training(fresh)
    fresh(torch.randn(2, 3))
    with pytest.raises(SurgeryError, match="0 still calibrates; convert after calibrate_until"):
        convert(fresh)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loaded_integers_compute_the_same_bit_by_bit(dtype, bits):
    """In 16 bits, a code times its rounded scale would be quantized to another code."""
    model, x = trained(bits, bits).to(dtype), torch.randn(5, 3, 7, 7).to(dtype)
    integers = convert(model)
    assert check_converted(model, integers, x) == 0
    other = trained(bits, bits, seed=1).to(dtype)
    load_converted(other, integers)
    assert torch.equal(other(x), model(x))
    assert all(torch.equal(value, convert(other)[key]) for key, value in integers.items() if "scale" in key)
    integers["4.weight_scale"][0] *= 1.5
    with pytest.raises(SurgeryError, match="the converted network is off by"):
        check_converted(model, integers, x)


def test_the_smallest_weights_are_loaded_too():
    """Below the constant that is added to bounds, no code reaches the largest."""
    model, x = trained(8, 8), torch.randn(2, 3, 7, 7)
    with torch.no_grad():
        model[4].weight[0].zero_()
        model[4].weight[1] *= 1e-7 / model[4].weight[1].abs().max()
    assert check_converted(model, convert(model), x) == 0


def test_outputs_that_are_zero_and_outputs_that_tell_nothing():
    model, x = trained(), torch.randn(2, 3, 7, 7)
    for parameter in model[4].parameters():
        nn.init.zeros_(parameter)
    integers = convert(model)
    assert check_converted(model, integers, x) == 0
    with pytest.raises(SurgeryError, match="empty or not finite"):
        check_converted(model, integers, x * torch.nan)
    with pytest.raises(SurgeryError, match="empty or not finite"):
        check_converted(model, integers, x[:0])
    integers["4.bias"] += 1
    with pytest.raises(SurgeryError, match="the converted network is off by"):
        check_converted(model, integers, x)


def test_a_layer_never_called_is_converted_on_demand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    apply_quantization_aware_training(model, 8, 8)
    x = torch.randn(5, 4)
    model[0](x)
    set_activation_bounds(model)
    with pytest.raises(SurgeryError, match=r"1 has seen no batch in train mode.*unmeasured=True"):
        convert(model)
    integers = convert(model, unmeasured=True)
    assert "0.input_scale" in integers
    assert integers["1.weight"].dtype == torch.int8
    assert "1.input_scale" not in integers
    assert check_converted(model, integers, x) == 0
    model[1](x)
    with pytest.raises(SurgeryError, match="1 still calibrates"):
        convert(model, unmeasured=True)
