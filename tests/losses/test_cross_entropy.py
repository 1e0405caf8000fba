"""The cross-entropy of sparse prediction: each dtype, a loss scale, a count, several backwards."""

from functools import cache, partial

import pytest
import torch
import torch.nn.functional as F

from cadenza.losses import cross_entropy
from cadenza.losses.cross_entropy import CHUNK, cross_entropy_


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["passes", "fused"])
def fused(request, fresh_graphs, monkeypatch):
    """Also as it is compiled on CUDA, but for the backend."""
    if request.param:
        compiled = cache(partial(torch.compile, dynamic=True, fullgraph=True, backend="aot_eager"))
        monkeypatch.setattr(cross_entropy, "_compiled", compiled)
        monkeypatch.setattr(cross_entropy, "_fuses", lambda logits: True)
        monkeypatch.setattr(cross_entropy, "FUSED_CHUNK", 100)


def chunked(rows, vocabulary, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(rows, vocabulary, dtype=torch.float64, generator=generator)).to(dtype)
    return logits, torch.randint(0, vocabulary, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [1, 7, 50])
@pytest.mark.parametrize("chunk", [1, 3 * 33, 2**18])
def test_the_loss_and_its_gradient(rows, chunk, fused, monkeypatch):
    monkeypatch.setitem(CHUNK, "cpu", chunk)
    logits, labels = chunked(rows, 33)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    (3 * cross_entropy_(ours * 1.0, labels)).backward()
    expected = 3 * F.cross_entropy(theirs, labels)
    expected.backward()
    assert abs(cross_entropy_(logits.clone(), labels) * 3 - expected) < 1e-13
    assert (ours.grad - theirs.grad).abs().max() < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_dtypes(dtype, fused):
    """The loss is a float32 mean; the gradient, at most 1/rows, is rounded once to the logits' dtype."""
    logits, labels = chunked(50, 33, dtype)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = cross_entropy_(ours * 1.0, labels)
    loss.backward()
    expected = F.cross_entropy(theirs, labels)
    expected.backward()
    assert loss.dtype == torch.float32
    assert abs(loss - expected) < 1e-6 * expected
    assert (ours.grad - theirs.grad).abs().max() < torch.finfo(dtype).eps / 50 + 1e-8


def test_a_loss_scale_saves_gradients_that_float16_is_too_coarse_for(fused):
    """Softmax over rows is 1.2e-8 here, below the smallest float16, until the scale multiplies it."""
    logits = torch.zeros(500, 50, dtype=torch.float16)
    logits[:, 0] = 12
    leaf, scale = logits.requires_grad_(), 2.0**15
    (scale * cross_entropy_(leaf * 1.0, torch.zeros(500, dtype=torch.long))).backward()
    expected = scale / 500 * torch.softmax(logits.detach().double(), 1)[0, 1]
    assert expected / scale < 2.0**-25
    assert (leaf.grad[:, 1:].double() - expected).abs().max() < torch.finfo(torch.float16).eps * expected


@pytest.mark.parametrize("count", [100, 12.5, torch.tensor(100), torch.tensor(100.0)])
def test_a_given_count_divides_the_sum(count):
    logits, labels = chunked(7, 33)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    loss = cross_entropy_(ours * 1.0, labels, count)
    expected = F.cross_entropy(theirs, labels, reduction="sum") / count
    loss.backward()
    expected.backward()
    assert abs(loss - expected) < 1e-13
    assert (ours.grad - theirs.grad).abs().max() < 1e-14


def test_no_rows():
    logits, labels = torch.zeros(0, 33).requires_grad_(), torch.zeros(0, dtype=torch.long)
    assert cross_entropy_(logits * 1.0, labels).isnan(), "the mean of nothing, as in stock code"
    loss = cross_entropy_(logits * 1.0, labels, 5)
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 33)


@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_extreme_logits(size):
    """The loss is a difference of numbers near 0, not of the logits themselves."""
    logits = torch.tensor([[0.0, 0.1, -0.7], [2.0, 2.3, 1.0]]) + torch.tensor([[size], [-size]])
    labels = torch.tensor([1, 0])
    expected = F.cross_entropy(logits.double(), labels)
    assert abs(cross_entropy_(logits, labels) - expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_second_backward_gives_the_same_gradient(dtype):
    logits, labels = chunked(7, 33, dtype)
    leaf = logits.requires_grad_()
    loss = cross_entropy_(leaf * 1.0, labels)
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (second,) = torch.autograd.grad(0.5 * loss, leaf, retain_graph=True)
    (third,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(first, third)
    assert torch.equal(second, first / 2)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, leaf)


def test_the_last_backward_writes_into_the_logits():
    leaf, labels = chunked(7, 33)
    logits = leaf.requires_grad_() * 1.0
    loss, before = cross_entropy_(logits, labels), logits.detach().clone()
    torch.autograd.grad(loss, logits, retain_graph=True)
    assert torch.equal(logits, before)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("apart", [True, False])
def test_a_gradient_of_the_gradient(apart):
    """As in a penalty on the gradient, whether or not the loss itself is part of the sum."""
    logits, labels = chunked(7, 33)
    gradients = []
    for mean in (cross_entropy_, F.cross_entropy):
        leaf = logits.clone().requires_grad_()
        loss = mean(leaf * 1.0, labels)
        (first,) = torch.autograd.grad(loss, leaf, create_graph=True)
        penalty = first.square().sum()
        (penalty if apart else loss + penalty).backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().max() > 1e-6
    assert (gradients[0] - gradients[1]).abs().max() < 1e-14


def test_another_use_of_the_logits_is_noticed():
    """Its gradient would be computed from what the backward wrote."""
    leaf, labels = chunked(7, 33)
    logits = leaf.requires_grad_() * 1.0
    first = logits.square().sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (first + cross_entropy_(logits, labels)).backward()


def test_where_it_fuses_both_passes_are_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(cross_entropy, "_fuses", lambda logits: True)
    monkeypatch.setattr(cross_entropy, "_compiled", lambda function: asked.append(function) or function)
    logits, labels = chunked(5, 33)
    cross_entropy_(logits.requires_grad_() * 1.0, labels).backward()
    assert asked == [cross_entropy._statistics, cross_entropy._write_fused]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fused_kernels_on_a_gpu(dtype):
    """Several numbers of rows share the compiled kernels."""
    for rows in (3, 500, 129):
        logits, labels = (x.cuda() for x in chunked(rows, 30522, dtype))
        ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
        loss = cross_entropy_(ours * 1.0, labels)
        loss.backward()
        expected = F.cross_entropy(theirs, labels)
        expected.backward()
        assert abs(loss - expected) < 1e-6 * expected
        assert (ours.grad - theirs.grad).abs().max() < torch.finfo(dtype).eps / rows + 1e-8
