"""QAT: the quantizers against plain float64 references, calibration, tracing, trainers, errors."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from composer.algorithms.warnings import NoEffectWarning
from families import batch, build
from torch import nn

from cadenza.algorithms import (
    apply_low_precision_norm,
    apply_post_training_quantization,
    apply_quantization_aware_training,
    set_activation_bounds,
)
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.surgery import NoEffect, SurgeryError
from cadenza.surgery.fake_quant import EPSILON, quantize, quantize_weight, step_of, weight_step
from cadenza.surgery.relu_inputs import nonnegative_inputs

LAYERS = {
    "linear": (lambda: nn.Linear(7, 5), (3, 11, 7)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 1), stride=2, padding=(2, 0), bias=False), (2, 4, 7, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2), (3, 4, 9, 8)),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 5)),
}
layers = pytest.mark.parametrize("kind", LAYERS)


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    build_layer, shape = LAYERS[kind]
    return nn.Sequential(build_layer()).to(dtype), torch.randn(shape, dtype=dtype)


def axes_but(x, axis):
    return [d for d in range(x.ndim) if d != axis % x.ndim]


def plain_codes(x, bound, bits, signed):
    """Scaled, clipped and rounded as AQT writes it; `bound` broadcasts."""
    if signed:
        most = 2 ** (bits - 1) - 1
        return torch.floor((x * most / (bound + EPSILON)).clamp(-most, most) + 0.5), (bound + EPSILON) / most
    scale = 2**bits / (bound + EPSILON)
    return torch.floor(x * scale).clamp(0, 2**bits - 1), 1 / scale


def plain_weight(weight, bits):
    bound = weight.abs().amax(axes_but(weight, 0), keepdim=True)
    whole, step = plain_codes(weight, bound, bits, signed=True)
    return whole * step


def plain_forward(layer, weight, x):
    """The layer's own operation with this weight."""
    return torch.func.functional_call(layer, {"weight": weight}, (x,))


class Reference:
    """A layer before, at and after the switch, in plain float64, with gradients by hand."""

    def __init__(self, layer, bits, per_channel, unsigned):
        self.layer, self.bits, self.unsigned, self.per_channel = layer, bits, unsigned, per_channel
        self.axis = -1 if isinstance(layer, nn.Linear) else 1
        self.high = self.low = torch.zeros(1)
        self.batches, self.frozen = 0, None

    def observe(self, x):
        over = axes_but(x, self.axis) if self.per_channel else list(range(x.ndim))
        self.high = 0.9 * self.high + 0.1 * x.amax(over, keepdim=True)
        self.low = 0.9 * self.low + 0.1 * (0 if self.unsigned else x.amin(over, keepdim=True))
        self.batches += 1

    def bound(self):
        share = 1 - 0.9**self.batches
        return torch.maximum(self.high.abs(), torch.as_tensor(self.low).abs()) / share

    def __call__(self, x, grad):
        """The output, and the gradients of input and weight where `grad` is the output's."""
        bits, signed = self.bits, not self.unsigned
        weight = plain_weight(self.layer.weight.detach(), bits).requires_grad_()
        inside = torch.ones_like(x)
        if self.frozen is None:
            entering = x.detach().clone()
        else:
            whole, step = plain_codes(x, self.frozen, bits, signed)
            entering = whole * step
            inside = ((x.abs() if signed else x) <= self.frozen + EPSILON).to(x)
        entering.requires_grad_()
        out = plain_forward(self.layer, weight, entering)
        out.backward(grad)
        return out.detach(), entering.grad * inside, weight.grad


@layers
@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_layer_equals_its_reference_before_at_and_after_the_switch(kind, granularity, unsigned, bits):
    model, x = made(kind)
    reference = Reference(copy.deepcopy(model[0]), bits, granularity == "per_channel", unsigned)
    apply_quantization_aware_training(model, bits, bits, None, granularity)
    model[0].unsigned = unsigned
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
    scale = weight_step(weight, bits).flatten()
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scale, torch.zeros(16, dtype=torch.int32), 0, -most, most
    )
    ours = quantize_weight(weight, bits)
    differs = (ours - theirs).abs() > 1e-6
    assert differs.float().mean() < 1e-3
    if bits <= 4:
        assert torch.unique(torch.round(ours / scale.view(-1, 1, 1, 1))).numel() == 2 * most + 1


def test_what_is_clipped_has_no_gradient_and_the_bound_itself_has_one():
    step = step_of(torch.tensor([1.0 - EPSILON]), 4, signed=True)
    x = torch.tensor([-1.5, -1.0, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    quantize(x, step, 4, True).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]
    step = step_of(torch.tensor([1.0 - EPSILON]), 4, signed=False)
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
    step = step_of(bound, 8, signed=True)
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


def test_evaluation_and_no_grad_measure_nothing():
    model, x = made("linear")
    apply_quantization_aware_training(model)
    model.eval()(x)
    with torch.no_grad():
        model.train()(x)
    assert model[0].input_batches == 0
    model(x)
    assert model[0].input_batches == 1


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


class Tricky(nn.Module):
    """Inputs that are negative, that aren't, and that look as if they weren't."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e, self.f, self.g, self.h = (nn.Linear(4, 4) for _ in range(8))
        self.norm = nn.LayerNorm(4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x, y=None):
        x, _ = x if isinstance(x, tuple) else (x, None)
        x = self.act(self.a(x))
        z = self.b(x)  # after a ReLU
        x = x + F.relu(z)
        x = self.c(F.dropout(x.view(-1, 4), 0.1).reshape(1, -1, 4))  # after a sum of two
        w = self.d(x.sigmoid())
        v = self.e(self.norm(F.relu(w)))  # a norm in between
        u = torch.relu(v)
        u.sub_(1)
        u = self.f(u)  # changed in place after the ReLU
        t = self.g(F.relu(u) - 0.5)
        return self.h(F.relu(t)) + self.h(t)  # called with both


def test_tracing_finds_what_is_never_negative():
    assert nonnegative_inputs(Tricky()) - {"norm", "act"} == {"b", "c", "d"}


def test_tracing_goes_on_below_what_it_cannot_trace():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x):
            return self.inner(x) if x.sum() > 0 else x

    assert "inner.2" in nonnegative_inputs(Branches())
    relu = nonnegative_inputs(build("bert", hidden_act="relu"))
    gelu = nonnegative_inputs(build("bert"))
    assert {p for p in relu - gelu if p.endswith("dense")} == {
        f"bert.encoder.layer.{i}.output.dense" for i in range(2)
    }


def test_tracing_leaves_the_model_alone():
    model = Tricky()
    seen = []
    model.a.register_forward_hook(lambda *_: seen.append(1))
    state = copy.deepcopy(model.state_dict())
    nonnegative_inputs(model)
    assert not seen
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_resnet_inputs_but_the_first_are_unsigned():
    from cadenza.models import resnet

    model = resnet("resnet18", 1.0, 10, 3)
    report = apply_quantization_aware_training(model)
    signed = [path for path, m in model.named_modules() if hasattr(m, "unsigned") and not m.unsigned]
    assert signed == ["module.conv1"]
    assert len(report) == 21
    assert "20 with inputs that are never negative" in str(report)


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
    assert (out[:, 90:] < -30000).all()
    expected = F.linear(x, plain_weight(head.weight.detach(), 4), head.bias)
    assert torch.allclose(out[:, :90], expected[:, :90], atol=1e-5)


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
        ({"weight_bits": 9}, "weight_bits is 9; it must be 2 to 8, or null"),
        ({"activation_bits": 1}, "activation_bits is 1; it must be 2 to 8, or null"),
        ({"weight_bits": None, "activation_bits": None}, "nothing is to be quantized"),
        ({"granularity": "per_row"}, "granularity 'per_row' is not per_channel or per_tensor"),
        ({"calibrate_until": "soon"}, "calibrate_until is 'soon'; it must be a time such as 7500ba"),
        ({"calibrate_until": "0ba"}, "some batches are needed to calibrate on"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(SurgeryError, match=said):
        QuantizationAwareTraining(**options)


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
    assert [int(m.input_batches) for m in measured] == [count] * 3


def test_training_that_ends_before_says_so():
    trainer = trained("9ba", 4)
    with pytest.warns(NoEffectWarning, match="activations aren't quantized yet.*calibrate_until=9ba"):
        trainer.fit()


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
