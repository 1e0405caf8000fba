"""Quantized layers among threads, under transforms of torch.func, and in traced graphs."""

import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jvp, vmap

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.surgery import SurgeryError


def calibrated(*sizes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:])).double()
    apply_quantization_aware_training(model, 4, 4, None)
    model(torch.randn(9, sizes[0], dtype=torch.float64))
    set_activation_bounds(model)
    return model


def test_threads_share_a_layer():
    model, x = calibrated(64, 64, 64), torch.randn(64, 64, dtype=torch.float64)
    expected, wrong = model(x).detach(), []

    def work():
        for _ in range(100):
            try:
                with torch.no_grad():
                    if not torch.equal(model(x), expected):
                        wrong.append("another number")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_call_leaves_the_layer_alone():
    model, x = calibrated(4, 5, 2), torch.randn(3, 4, dtype=torch.float64)
    before = dict(vars(model[0]))
    model(x)
    assert vars(model[0]) == before
    assert model[0].weight is model[0]._parameters["weight"]


def test_transforms_of_torch_func_give_the_gradients_of_backward():
    model, x = calibrated(4, 5, 2), 3 * torch.randn(7, 4, dtype=torch.float64)
    parameters = dict(model.named_parameters())

    def loss(parameters, x):
        return functional_call(model, parameters, (x,)).square().sum()

    loss(parameters, x).backward()
    whole = grad(loss)(parameters, x)
    each = vmap(grad(loss), (None, 0))(parameters, x[:, None])
    assert torch.equal(vmap(model)(x), model(x))
    for name, parameter in parameters.items():
        assert torch.allclose(whole[name], parameter.grad)
        assert torch.allclose(each[name].sum(0), parameter.grad)


def test_forward_mode_is_refused():
    """A `jvp` of our own would break compiled graphs."""
    model, x = calibrated(4, 5, 2), torch.randn(7, 4, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="jvp"):
        jvp(model, (x,), (x,))


def test_measuring_within_a_transform_is_refused():
    model = nn.Sequential(nn.Linear(4, 2))
    apply_quantization_aware_training(model)
    with pytest.raises(SurgeryError, match="can't measure its input within torch"):
        vmap(model)(torch.randn(3, 4))
    assert vmap(model.eval())(torch.randn(3, 4)).shape == (3, 2)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_traced_graph_computes_the_same():
    model, x = calibrated(4, 5, 2).eval(), torch.randn(7, 4, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(torch.jit.trace(model, x)(2 * x), model(2 * x))
