"""QAT: the quantizers against plain float64 references, dtypes, edges, ties, errors."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from families import batch, build
from quantized_reference import LAYERS, Reference, made, plain_codes, plain_weight
from torch import nn

from cadenza.algorithms import (
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    set_activation_bounds,
)
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.quantization.training.averages import weight
from cadenza.quantization.training.fake_quantize import (
    EPSILON,
    quantize,
    quantize_weight,
    scale_of,
    weight_scale,
)
from cadenza.surgery import NoEffect, SurgeryError

layers = pytest.mark.parametrize("kind", LAYERS)


@layers
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_layer_equals_its_reference_before_at_and_after_the_switch(kind, granularity, unsigned, bits):
    model, x = made(kind)
    reference = Reference(copy.deepcopy(model[0]), bits, granularity == "per_channel", unsigned)
    apply_quantization_aware_training(model, bits, bits, None, granularity)
    model[0].never_negative = model[0].unsigned = unsigned
    for step in range(6):
        if step == 3:
            assert set_activation_bounds(model) == 1
            reference.frozen = reference.bound()
        entering = (x.abs() if unsigned else x) * (1 + step)  # beyond the bound later on
        entering.requires_grad_()
        out = model(entering)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(step), dtype=out.dtype)
        model.zero_grad()
        out.backward(grad)
        if step < 3:
            reference.observe(entering.detach())
        expected = reference(entering.detach(), grad)
        # Averages are float32; a step's rounding there may move a number that lies on the edge of two codes.
        for ours, theirs in zip((out.detach(), entering.grad, model[0].weight.grad), expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), step
    assert (entering.grad == 0).any(), "something was clipped"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_weights_equal_torchs_fake_quantization_up_to_ties(bits):
    weight = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    most = 2 ** (bits - 1) - 1
    scale = weight_scale(weight, bits).flatten()
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(16, dtype=torch.int32), 0, -most, most
    )
    ours = quantize_weight(weight, weight_scale(weight, bits), bits)
    differs = (ours - theirs).abs() > 1e-6
    assert differs.float().mean() < 1e-3
    if bits <= 4:
        assert torch.unique(torch.round(ours / scale.view(-1, 1, 1, 1))).numel() == 2 * most + 1


def test_what_is_clipped_has_no_gradient_and_the_bound_itself_has_one():
    step = scale_of(torch.tensor([1.0 - EPSILON]), 4, signed=True)
    x = torch.tensor([-1.5, -1.0, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    quantize(x, step, 4, True).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]
    step = scale_of(torch.tensor([1.0 - EPSILON]), 4, signed=False)
    y = torch.tensor([0.0, 0.5, 0.99, 1.0, 2.0], requires_grad=True)
    out = quantize(y, step, 4, False)
    assert out.tolist() == [0, 0.5, 15 / 16, 15 / 16, 15 / 16]
    out.sum().backward()
    assert y.grad.tolist() == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_in_float32(dtype):
    """A step rounded to bfloat16 would move codes: of eight bits 2^-8 of a bound is half a step."""
    torch.manual_seed(0)
    x = torch.randn(4, 33, 5).to(dtype)
    bound = torch.rand(33, 1) + 1
    step = scale_of(bound, 8, signed=True)
    whole, exact = plain_codes(x.double(), bound.double(), 8, signed=True)
    ours = quantize(x, step, 8, True)
    assert ours.dtype == dtype
    assert torch.equal(ours, (whole * exact).to(torch.float32).to(dtype))
    rounded = torch.floor(x * (1 / step.to(dtype)) + 0.5).clamp(-127, 127)
    assert not torch.equal(rounded.double(), whole), "the comparison can fail"


def test_under_autocast():
    model, x = made("conv2d", torch.float32)
    apply_quantization_aware_training(model, 8, 8, None)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        set_activation_bounds(model)
        low = model(x)
    high = model(x)
    assert low.dtype == torch.bfloat16
    assert model[0].averages.dtype == torch.float32
    assert (
        low - high
    ).norm() / high.norm() < 3 * 2**-8  # inputs, weights and the result are rounded to 8 bits


def test_casts_of_the_model_leave_the_averages_alone():
    model, x = made("linear", torch.float32)
    apply_quantization_aware_training(model)
    model(x)
    before = model[0].averages.clone()
    assert torch.equal(model.bfloat16()[0].averages, before)


def test_evaluation_measures_nothing_and_train_mode_does_without_gradients_too():
    """As batch norm does."""
    model, x = made("linear")
    apply_quantization_aware_training(model)
    model.eval()(x)
    assert model[0].input_batches == 0
    with torch.no_grad():
        model.train()(x)
    assert weight(model[0]) == pytest.approx(0.1)
    model(x)
    assert weight(model[0]) == pytest.approx(1 - 0.9**2)


def test_edges_have_their_own_bits():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 5), nn.Linear(5, 2)
    )
    apply_quantization_aware_training(model, 4, None, 8)
    assert [m.weight_bits for m in model if hasattr(m, "weight_bits")] == [8, 4, 4, 8]
    assert [m.activation_bits for m in model if hasattr(m, "weight_bits")] == [None] * 4
    assert not any("input" in key for key in model.state_dict())
    x = torch.randn(2, 3, 5, 5)
    eights, fours = (plain_weight(model[0].weight.detach(), bits) for bits in (8, 4))
    out = model[0](x)
    assert torch.allclose(out, F.conv2d(x, eights, model[0].bias), atol=1e-6)
    assert not torch.allclose(out, F.conv2d(x, fours, model[0].bias), atol=1e-3)


def test_a_tied_head_and_a_padded_vocabulary():
    """The head computes with rounded weights, word embeddings with the parameter, and padding stays out."""
    from cadenza.algorithms import apply_vocab_padding

    model = build("bert", tie_word_embeddings=True)
    apply_vocab_padding(model)
    apply_quantization_aware_training(model, 4, None, None)
    head = model.get_output_embeddings()
    assert head.weight is model.get_input_embeddings().weight
    x = torch.randn(3, 32)
    out = head(x)
    assert out.shape == (3, 90)
    expected = F.linear(x, plain_weight(head.weight.detach(), 4), head.bias)
    assert torch.allclose(out, expected[:, :90], atol=1e-5)


def test_layers_read_by_others_are_listed():
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 8))
    report = apply_quantization_aware_training(model)
    assert [change.path for change in report.changes] == ["0"]
    assert "left as it is: 1.linear1, TransformerEncoderLayer reads its weight itself" in str(report)
    gpt2 = apply_quantization_aware_training(build("gpt2"))
    assert "Conv1D is not nn.Linear or nn.Conv1d" in str(gpt2)


def test_a_layer_is_quantized_in_one_way():
    pytest.importorskip("bitsandbytes")
    model = build("bert")
    apply_quantization_aware_training(model)
    with pytest.raises(NoEffect, match=r"QuantizationAwareTraining\(.*\) is in place"):
        apply_post_training_quantization(model)
    model = build("bert")
    apply_post_training_quantization(model, only=["*.0.output.dense"])
    report = apply_quantization_aware_training(model)
    assert "bert.encoder.layer.0.output.dense" not in [change.path for change in report.changes]
    inputs = batch("bert")
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight_bits": 9}, "weight_bits is 9; it must be at most 8"),
        ({"activation_bits": 1}, "activation_bits is 1; it must be at least 2"),
        ({"weight_bits": None, "activation_bits": None}, "nothing is to be quantized"),
        ({"granularity": "per_row"}, "granularity is 'per_row'; it must be per_channel or per_tensor"),
        ({"calibrate_until": "soon"}, "calibrate_until is 'soon'; it must be a number with a unit"),
        ({"calibrate_until": "0ba"}, "calibrate_until is '0ba'; it must be above zero"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(SurgeryError, match=said):
        QuantizationAwareTraining(**options)


def test_it_goes_with_low_precision_norms_and_checkpointing():
    model = build("bert").train()
    apply_quantization_aware_training(model, 8, 8)
    apply_low_precision_norm(model)
    inputs = batch("bert")
    model(**inputs)
    set_activation_bounds(model)
    torch.manual_seed(0)
    plain = model(**inputs).loss
    plain.backward()
    grads = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(0)
    model(**inputs).loss.backward()
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))
