"""`start`: full precision before it, the quantizer after it, in a Trainer, resumed, averaged, refused."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from composer import Algorithm, Event, Trainer
from composer.algorithms.warnings import NoEffectWarning
from quantized_reference import LAYERS, Reference, made
from torch import nn

from cadenza.algorithms import apply_quantization_aware_training, convert, set_activation_bounds
from cadenza.algorithms.quantization_aware_training import QuantizationAwareTraining
from cadenza.models import classifier
from cadenza.quantization import export_onnx
from cadenza.quantization.training.calibration import calibrate, start_quantization, waiting
from cadenza.quantization.training.learned_scales import initial_weight_scale
from cadenza.recipe.task import keep_integers
from cadenza.surgery import SurgeryError

LATER = {"start": "4ba", "calibrate_until": "6ba"}
BATCHES = 10


def delayed(model, **options):
    return QuantizationAwareTraining(**{**LATER, **options}).operate(model)


def same(ones, others):
    assert len(ones) == len(others)
    return all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scales", ["calibrated", "learned"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_before_it_a_layer_equals_the_stock_one_bit_by_bit(kind, scales, dtype):
    model, x = made(kind, dtype)
    stock = copy.deepcopy(model)
    delayed(model, scales=scales)
    found = []
    for each in (stock, model):
        leaf = x.clone().requires_grad_()
        out = each(leaf)
        out.float().square().sum().backward()
        found.append((out, leaf.grad, each[0].weight.grad, each.eval()(x)))
    assert same(*found)
    assert not model[0].input_batches, "nothing is measured"
    if scales == "learned":  # DDP raises for a parameter without a gradient
        assert model[0].learned_weight_scale.grad.eq(0).all()
        assert model[0].input_scale_factor.grad.eq(0).all()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bits", [2, 4])
def test_after_it_a_layer_equals_its_float64_reference(kind, bits):
    model, x = made(kind)
    reference = Reference(copy.deepcopy(model[0]), bits, True, False)
    delayed(model, weight_bits=bits, activation_bits=bits, edge_bits=None)
    for step in range(6):
        if step == 2:
            assert start_quantization(model) == 1
        if step == 4:
            assert set_activation_bounds(model) == 1
            reference.frozen = reference.bound()
        entering = (x * (1 + step)).requires_grad_()
        model.zero_grad()
        out = model(entering)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(step), dtype=out.dtype)
        out.backward(grad)
        if step < 2:
            continue
        if step < 4:  # what came before the start isn't in the bounds
            reference.observe(entering.detach())
        expected = reference(entering.detach(), grad)
        for ours, theirs in zip((out.detach(), entering.grad, model[0].weight.grad), expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), step


def test_a_learned_scale_starts_from_the_weight_of_then():
    model, _ = made("conv2d")
    delayed(model, scales="learned")
    parameter = model[0].learned_weight_scale
    with torch.no_grad():
        model[0].weight.mul_(3)
        parameter.mul_(0.5)  # as a weight decay would
    start_quantization(model)
    assert model[0].learned_weight_scale is parameter, "the optimizer holds it"
    assert torch.equal(parameter, initial_weight_scale(model[0].weight, 8))


def test_state_dicts_without_it_are_as_before():
    model, delays = made("linear")[0], made("linear")[0]
    apply_quantization_aware_training(model)
    delayed(delays)
    keys = ["0.weight", "0.bias", "0.input_averages", "0.input_batches", "0.calibrated"]
    assert list(model.state_dict()) == keys
    assert list(delays.state_dict()) == [*keys, "0.started"]
    assert not model[0].waiting
    assert "after `start`" in str(delays)
    start_quantization(delays)
    assert "after `start`" not in str(delays)


class Outputs(Algorithm):
    """Keeps what each step trained on: the logits."""

    def __init__(self):
        self.found = []

    def match(self, event, state):
        return event == Event.AFTER_FORWARD

    def apply(self, event, state, logger):
        self.found.append(state.outputs.detach().clone())


def run(algorithms, end=BATCHES, folder=None, load=None, scales=None):
    """A run of small batches; returns the logits of each step, and the Trainer."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    data = [(torch.randn(5, 1, 8, 8), torch.randint(3, (5,))) for _ in range(BATCHES)]
    model, outputs = classifier(network, 3), Outputs()
    trainer = Trainer(
        model=model,
        train_dataloader=torch.utils.data.DataLoader(data, batch_size=None),
        optimizers=torch.optim.AdamW(model.parameters(), 0.01),
        algorithms=[*algorithms, outputs],
        max_duration=f"{end}ba",
        progress_bar=False,
        device_train_microbatch_size=5,
        run_name="run",
        save_folder=folder and str(folder),
        save_interval="1ba",
        load_path=load and str(load),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit()
    return outputs.found, trainer


def layers(trainer):
    return [m for m in trainer.state.model.modules() if hasattr(m, "waiting")]


@pytest.mark.parametrize("scales", ["calibrated", "learned"])
def test_a_trainer_starts_at_the_time(scales):
    plain, _ = run([])
    found, trainer = run([QuantizationAwareTraining(**LATER, scales=scales)])
    always, _ = run([QuantizationAwareTraining(calibrate_until="6ba", scales=scales)])
    assert same(plain[:4], found[:4])
    assert not any(torch.equal(a, b) for a, b in zip(plain[4:], found[4:], strict=True))
    assert not torch.equal(always[0], plain[0])
    assert [(m.waiting, m.calibrating) for m in layers(trainer)] == [(False, False)] * 3


@pytest.mark.parametrize("scales", ["calibrated", "learned"])
@pytest.mark.parametrize("at", [2, 4, 5, 7])  # before, at and after the start, after the calibration
def test_a_resumed_run_goes_on_exactly(tmp_path, at, scales):
    whole, trained = run([QuantizationAwareTraining(**LATER, scales=scales)], folder=tmp_path)
    rest, resumed = run(
        [QuantizationAwareTraining(**LATER, scales=scales)], load=tmp_path / f"ep0-ba{at}-rank0.pt"
    )
    assert same(whole[at:], rest)
    ours, theirs = resumed.state.model.state_dict(), trained.state.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert same(list(ours.values()), list(theirs.values()))


def test_both_times_within_one_batch_leave_a_batch_to_measure():
    _, trainer = run([QuantizationAwareTraining(start="0.61dur", calibrate_until="0.65dur")])
    assert [(m.waiting, m.calibrating) for m in layers(trainer)] == [(False, False)] * 3


def test_training_that_ends_before_says_so():
    state = SimpleNamespace(model=nn.Sequential(nn.Linear(4, 3)))
    for activation_bits in (4, None):
        algorithm = QuantizationAwareTraining(activation_bits=activation_bits, **LATER)
        algorithm.report = algorithm.operate(state.model)
        with pytest.warns(NoEffectWarning, match="nothing is quantized yet: training ended before start=4ba"):
            algorithm.apply(Event.FIT_END, state, None)
        algorithm.report.undo()


def test_an_average_of_models_knows_its_start():
    model, x = made("linear", torch.float32)
    delayed(model)
    copied = copy.deepcopy(model).eval()
    assert torch.equal(copied(x), model.eval()(x))
    start_quantization(model)
    with torch.no_grad():
        for ours, theirs in zip(copied.buffers(), model.buffers(), strict=True):
            ours.copy_(0.9 * ours + 0.1 * theirs)  # as EMA
    assert torch.equal(copied(x), model(x))
    assert not copied[0].waiting


def test_compiled_layers_follow():
    model, x = made("linear", torch.float32)
    delayed(model)
    fast = torch.compile(model, backend="eager")
    assert torch.equal(fast(x), model(x))
    before = fast(x)
    start_quantization(model)
    after = fast(x)
    assert torch.equal(after, model(x))
    assert not torch.equal(after, before)


def test_what_waits_gives_no_integers(tmp_path):
    model, x = made("linear", torch.float32)
    delayed(model)
    keep_integers(model, tmp_path)
    assert not list(tmp_path.iterdir())
    waits = "still computes in full precision"
    for act in (
        lambda: convert(model, unmeasured=True),
        lambda: set_activation_bounds(model),
        lambda: calibrate(model, [x]),
    ):
        with pytest.raises(SurgeryError, match=f"0 {waits}"):
            act()
    start_quantization(model)
    model(x)
    set_activation_bounds(model)
    keep_integers(model, tmp_path)
    assert list(tmp_path.iterdir())
    assert not waiting(model)


@pytest.mark.skipif(not hasattr(torch.onnx, "ops"), reason="export_onnx needs torch 2.8")
def test_what_waits_is_not_exported(tmp_path):
    pytest.importorskip("onnxruntime")
    model, x = made("linear", torch.float32)
    delayed(model)
    with pytest.raises(SurgeryError, match="export_onnx: 0 still computes in full precision; train further"):
        export_onnx(model, tmp_path / "net.onnx", x)


@pytest.mark.parametrize(
    ("start", "until"), [("0.8dur", "0.05dur"), ("4ba", "4ba"), ("4ba", "0.9dur"), ("1ep", "20ba")]
)
def test_the_calibration_ends_later_in_the_same_unit(start, until):
    message = f"calibrate_until is '{until}' and start '{start}'; calibrate_until must be a later time in the"
    with pytest.raises(SurgeryError, match=message):
        QuantizationAwareTraining(start=start, calibrate_until=until)
    QuantizationAwareTraining(activation_bits=None, start=start, calibrate_until=until)


@pytest.mark.parametrize("start", ["0ba", "0dur", "0ep"])
def test_a_start_of_zero_is_none(start):
    model, _ = made("linear")
    QuantizationAwareTraining(start=start).operate(model)
    assert not model[0].waiting
    assert "0.started" not in model.state_dict()


def test_shards_allow_no_new_scales():
    state = SimpleNamespace(model=nn.Sequential(nn.Linear(4, 3)), fsdp_config=object())
    with pytest.raises(SurgeryError, match="scales 'learned', which FSDP's shards of weights don't allow"):
        QuantizationAwareTraining(**LATER, scales="learned").apply(Event.INIT, state, None)
    assert type(state.model[0]) is nn.Linear
