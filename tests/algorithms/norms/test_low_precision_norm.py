"""Low-precision norms against plain float64 norms, under autocast and without."""

import importlib
import warnings
from types import SimpleNamespace

import pytest
import torch
from composer.algorithms.warnings import NoEffectWarning
from composer.core import Event, Precision
from families import batch, build
from norms import NORMS
from torch import nn

from cadenza.algorithms import LowPrecisionNorm, apply_low_precision_norm
from cadenza.surgery import NoEffect

SHAPES = [(1, 1), (3, 7), (2, 5, 33)]


def plain(norm, x):
    mean = x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else 0.0
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    y = (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + eps)
    y = y if norm.weight is None else y * norm.weight.detach().double()
    bias = getattr(norm, "bias", None)
    return y if bias is None else y + bias.detach().double()


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(kind, shape, dtype):
    torch.manual_seed(0)
    norm = NORMS[kind](shape[-1])
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0, std=0.1)
    model = nn.Sequential(norm)
    apply_low_precision_norm(model)
    x = torch.randn(*shape, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        out = model(x)
        out.float().sum().backward()
    assert out.dtype == dtype, "stock norms give float32 here"
    rounded = x.detach().to(dtype).double().requires_grad_()
    expected = plain(norm, rounded)
    expected.sum().backward()
    # Input, weight, bias and result are each rounded once: a few units in the last place of values up to 4.
    tolerance = 4 * 4 * torch.finfo(dtype).eps
    assert (out.double() - expected).abs().max() < tolerance
    if shape[-1] > 1:  # over one number the gradient is a difference of equals
        assert (x.grad.double() - rounded.grad).abs().max() < 4 * tolerance * max(1, rounded.grad.abs().max())


@pytest.mark.parametrize("kind", NORMS)
def test_without_autocast_nothing_changes(kind):
    norm = NORMS[kind](8)
    x = torch.randn(2, 8)
    before = norm(x)
    model = nn.Sequential(norm)
    apply_low_precision_norm(model)
    assert torch.equal(before, model(x))
    assert model(x).dtype == torch.float32


@pytest.mark.parametrize("family", ["bert", "modernbert", "llama", "qwen3", "mistral", "gpt2"])
def test_every_norm_of_a_model_runs_low(family):
    model = build(family)
    apply_low_precision_norm(model)
    dtypes = []
    for module in model.modules():
        if "Norm" in type(module).__name__:
            module.register_forward_hook(lambda m, i, o: dtypes.append(o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(**batch(family))
    assert len(dtypes) > 4
    assert set(dtypes) == {torch.bfloat16}


def test_norms_of_another_kind_are_left_alone():
    class Centred(nn.LayerNorm):
        def forward(self, x):
            return 1 + super().forward(x)

    with pytest.raises(NoEffect):
        apply_low_precision_norm(nn.Sequential(Centred(4)))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_rms_norms_by_family_keep_their_eps(model_type):
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    norm_class = getattr(module, f"{model_type.capitalize()}RMSNorm")
    check_eps(norm_class(8, eps=0.5))


@pytest.mark.parametrize("norm_class", [nn.LayerNorm, nn.RMSNorm])
def test_norms_of_torch_keep_their_eps(norm_class):
    check_eps(norm_class(8, eps=0.5))


@pytest.mark.parametrize(("norm_class", "name"), [(nn.LayerNorm, "layer_norm"), (nn.RMSNorm, "rms_norm")])
def test_the_kernel_runs_outside_of_autocast(norm_class, name, monkeypatch):
    """On CUDA autocast would have it in float32 again."""
    kernel, seen = getattr(nn.functional, name), []

    def watched(*args, **options):
        seen.append(torch.is_autocast_enabled("cpu"))
        return kernel(*args, **options)

    monkeypatch.setattr(nn.functional, name, watched)
    model = nn.Sequential(norm_class(8))
    apply_low_precision_norm(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.ones(1, 8))
    assert seen == [False]


def check_eps(norm):
    model = nn.Sequential(norm)
    assert len(apply_low_precision_norm(model)) == 1
    x = torch.linspace(-1, 1, 8).bfloat16()[None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(x.float())
    expected = plain(norm, x.double())
    assert (found.double() - expected).abs().max() < 2**-7
    norm.eps = norm.variance_epsilon = 1e-6
    assert (plain(norm, x.double()) - expected).abs().max() > 0.1


def test_it_warns_where_nothing_is_low():
    algorithm = LowPrecisionNorm()
    for precision, count in ((Precision.FP32, 1), (Precision.AMP_BF16, 0), (Precision.AMP_FP16, 0)):
        state = SimpleNamespace(
            algorithms=[algorithm],
            model=nn.Sequential(nn.LayerNorm(4)),
            optimizers=(),
            precision=precision,
            load_model_state=None,
            load_state_dict=None,
        )
        logger = SimpleNamespace(log_hyperparameters=lambda values: None)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            algorithm.apply(Event.INIT, state, logger)
        assert [w.category for w in said] == [NoEffectWarning] * count
        assert len(algorithm.report) == 1
