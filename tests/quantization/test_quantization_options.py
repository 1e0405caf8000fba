"""quantization_aware_training: every option arrives, edges, which layers, what a Trainer is told."""

import warnings

import pytest
import torch
from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event, Time, Timestamp
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.quantization.training.fake_quantize import EPSILON, quantize_weight, weight_scale
from cadenza.surgery import NoEffect, SurgeryError

DEFAULTS = (
    "QuantizationAwareTraining(weight_bits=4, activation_bits=4, edge_bits=8, "
    "calibrate_until='0.05dur', granularity='per_channel', edge_gradient='full', "
    "scales='calibrated', start='0ba')"
)


def conv(entering=4):
    return nn.Conv2d(entering, 4, 1)


def linear():
    return nn.Linear(4, 4)


def bits(model):
    return [(m.weight_bits, m.activation_bits) for m in model.modules() if hasattr(m, "weight_bits")]


def test_defaults_are_the_authors():
    assert repr(QuantizationAwareTraining()) == DEFAULTS
    assert apply_quantization_aware_training(linear()).surgery == DEFAULTS


def test_the_functional_form_passes_every_option():
    report = apply_quantization_aware_training(linear(), 3, 5, 6, "per_tensor", "half")
    expected = QuantizationAwareTraining(3, 5, 6, granularity="per_tensor", edge_gradient="half")
    assert report.surgery == repr(expected)
    report = apply_quantization_aware_training(linear(), scales="learned")
    assert report.surgery == repr(QuantizationAwareTraining(scales="learned"))
    layer = linear()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    report = apply_quantization_aware_training(layer, optimizers=optimizer)
    assert report.undos.optimizers == (optimizer,)


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits", "edge_bits"])
def test_two_to_eight_bits(name):
    for number in (2, 8, None):
        QuantizationAwareTraining(**{name: number})
    for number in (1, 9):
        with pytest.raises(SurgeryError, match=f"{name} is {number}; it must be at "):
            QuantizationAwareTraining(**{name: number})


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([linear, linear, linear], [4, 4, 8]),
        ([conv, conv, conv], [8, 4, 4]),
        ([linear, conv, conv, linear, linear], [4, 8, 4, 4, 8]),
        ([linear, conv], [8, 8]),
    ],
)
def test_the_first_convolution_and_the_last_linear_layer_are_edges(layers, found):
    model = nn.Sequential(*(make() for make in layers))
    apply_quantization_aware_training(model, 4, 3)
    assert bits(model) == [(n, 3 if n == 4 else 8) for n in found]
    model = nn.Sequential(*(make() for make in layers))
    apply_quantization_aware_training(model, 4, 3, None)
    assert bits(model) == [(4, 3)] * len(layers)


def test_edges_leave_what_is_not_quantized_alone():
    for weight, activation in ((None, 4), (4, None)):
        model = nn.Sequential(conv(), linear(), linear())
        apply_quantization_aware_training(model, weight, activation, 8)
        assert bits(model) == [(weight and n, activation and n) for n in (8, 4, 8)]


def test_an_edge_is_among_what_is_quantized():
    model = nn.Sequential(type("Mine", (nn.Conv2d,), {})(4, 4, 1), conv(), linear())
    report = apply_quantization_aware_training(model)
    assert report.skipped.keys() == {"0"}
    assert bits(model) == [(8, 8), (8, 8)]


def test_a_weight_that_is_no_parameter_is_left():
    model = nn.Sequential(linear(), linear())
    weight = model[0].weight.detach()
    del model[0]._parameters["weight"]
    model[0].weight = weight
    report = apply_quantization_aware_training(model)
    assert [change.path for change in report.changes] == ["1"]


@pytest.mark.parametrize(("granularity", "size"), [("per_channel", 3), ("per_tensor", 1)])
def test_granularity_is_of_the_bounds(granularity, size):
    for layer, x in ((nn.Linear(3, 5), torch.randn(2, 3)), (nn.Conv1d(3, 5, 1), torch.randn(2, 3, 4))):
        apply_quantization_aware_training(layer, granularity=granularity)
        layer(x)
        assert layer.averages.shape == (2, size)
        assert layer.input_scale().numel() == size


def test_signs_are_looked_for_where_inputs_are_quantized():
    for activation, unsigned in ((4, [False, True]), (None, [False, False])):
        model = nn.Sequential(linear(), nn.ReLU(), linear())
        report = apply_quantization_aware_training(model, 4, activation)
        assert [model[0].unsigned, model[2].unsigned] == unsigned
        assert report.notes == (["1 with inputs that are never negative"] if activation else [])


def test_a_second_time_adds_nothing():
    model = nn.Sequential(linear())
    first = apply_quantization_aware_training(model)
    ignored = list(model._ddp_params_and_buffers_to_ignore)
    second = apply_quantization_aware_training(model)
    assert (len(second), second.already, second.notes) == (0, 1, [])
    second.undo()
    assert model._ddp_params_and_buffers_to_ignore == ignored
    first.undo()
    assert type(model[0]) is nn.Linear
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_a_layer_says_what_it_does():
    model = nn.Sequential(linear(), nn.ReLU(), linear())
    apply_quantization_aware_training(model, 3, 5, None)
    assert "bias=True, 3-bit weights, signed 5-bit activations)" in str(model[0])
    assert "bias=True, 3-bit weights, unsigned 5-bit activations)" in str(model[2])
    model = nn.Sequential(linear())
    apply_quantization_aware_training(model, None, 5, None)
    assert "weights as they are, signed 5-bit activations" in str(model[0])
    model = nn.Sequential(linear())
    apply_quantization_aware_training(model, 5, None, None)
    assert "5-bit weights, activations as they are" in str(model[0])


def test_a_call_that_fails_leaves_the_weight_a_parameter():
    layer = linear()
    apply_quantization_aware_training(layer)
    with pytest.raises(RuntimeError):
        layer(torch.randn(2, 3))
    assert "weight" not in vars(layer)
    assert isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_low_precision_are_rounded_in_float32(dtype):
    weight = torch.randn(5, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    step = (weight.float().abs().amax(1, keepdim=True) + EPSILON) / 127
    expected = ((weight.float() / step + 0.5).floor() * step).to(dtype)
    found = quantize_weight(weight, weight_scale(weight, 8), 8)
    assert found.dtype == dtype
    assert (found == expected).float().mean() > 0.99  # a code on an edge may differ
    low = step.to(dtype)
    rounded = ((weight.float() / low.float() + 0.5).floor() * low.float()).to(dtype)
    assert (rounded == expected).float().mean() < 0.9, "the comparison can fail"


class Logger:
    def __init__(self):
        self.metrics, self.parameters = [], {}

    def log_metrics(self, values):
        self.metrics.append(values)

    def log_hyperparameters(self, values):
        self.parameters |= values


class State:
    """What an algorithm sees of a Trainer's state, after `batch` batches of ten."""

    def __init__(self, model, *algorithms, batch=0):
        self.model, self.algorithms, self.optimizers = model, list(algorithms), ()
        self.max_duration, self.dataloader_len = Time.from_timestring("10ba"), 10
        self.timestamp = Timestamp(batch=batch)

    def load_model_state(self):
        raise NotImplementedError

    load_state_dict = load_model_state


def test_events_count_from_the_surgery_on():
    algorithm = QuantizationAwareTraining()
    later = {Event.BATCH_START, Event.BATCH_END, Event.FIT_END}
    state, logger = State(nn.Sequential(linear())), Logger()
    assert {event for event in Event if algorithm.match(event, state)} == {Event.INIT}
    algorithm.apply(Event.INIT, state, logger)
    assert {event for event in Event if algorithm.match(event, state)} == {Event.INIT, *later}
    assert logger.parameters == {"QuantizationAwareTraining/modules": 1}


def test_what_was_done_before_counts_in_a_trainer_too():
    model, logger = nn.Sequential(linear()), Logger()
    apply_quantization_aware_training(model)
    algorithm = QuantizationAwareTraining()
    algorithm.apply(Event.INIT, State(model, algorithm), logger)
    assert logger.parameters == {"QuantizationAwareTraining/modules": 1}


def test_bounds_are_set_at_the_start_of_the_batch_that_it_says():
    model, logger = nn.Sequential(linear()), Logger()
    algorithm = QuantizationAwareTraining(calibrate_until="0.3dur")
    state = State(model, algorithm)
    algorithm.apply(Event.INIT, state, logger)
    for batch in range(5):
        state.timestamp = Timestamp(batch=batch)
        algorithm.apply(Event.BATCH_START, state, logger)
        assert model[0].calibrating == (batch < 3)
        model(torch.randn(2, 4))
        state.timestamp = Timestamp(batch=batch + 1)
        algorithm.apply(Event.BATCH_END, state, logger)
        assert model[0].calibrating == (batch < 3), "never at a batch's end"
    assert logger.metrics == [{"quantization_aware_training/calibrated": 1.0}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        algorithm.apply(Event.FIT_END, state, logger)


def test_an_end_before_the_bounds_is_a_warning_alone():
    model = nn.Sequential(linear())
    algorithm = QuantizationAwareTraining(calibrate_until="2ba")
    state = State(model, algorithm)
    algorithm.apply(Event.INIT, state, Logger())
    model(torch.randn(2, 4))
    state.timestamp = Timestamp(batch=10)
    with pytest.warns(NoEffectWarning, match="training ended before calibrate_until=2ba"):
        algorithm.apply(Event.FIT_END, state, Logger())
    assert model[0].calibrating


def test_only_what_saw_a_batch_gets_bounds():
    model = nn.ModuleList([linear(), linear(), nn.LayerNorm(4)])
    apply_quantization_aware_training(model)
    with pytest.raises(SurgeryError, match="no quantized layer has seen a batch in train mode"):
        set_activation_bounds(model)
    model[1](torch.randn(2, 4))
    assert set_activation_bounds(model) == 1
    assert [bool(m.calibrated) for m in model[:2]] == [False, True]
    assert set_activation_bounds(model) == 0, "bounds are set already"
    model[0](torch.randn(2, 4))
    assert set_activation_bounds(model) == 1
    with pytest.raises(SurgeryError):
        set_activation_bounds(nn.Sequential(linear()))


def test_nothing_to_quantize():
    for model in (nn.Sequential(nn.LayerNorm(4)), nn.Sequential(nn.ConvTranspose2d(2, 2, 1))):
        with pytest.raises(NoEffect):
            apply_quantization_aware_training(model)
