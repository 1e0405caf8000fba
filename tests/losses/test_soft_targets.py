"""The loss of soft targets, against plain float64 of its definition."""

import math

import pytest
import torch

from cadenza.losses.soft_targets import soft_target_loss


def plain(student, teacher, temperature):
    """T^2 KL(teacher || student), example by example, and the gradient T (p_student - p_teacher) / n."""
    total, gradient = 0.0, []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = ([math.exp(z / temperature) for z in each] for each in (theirs, ours))
        p, q = [v / sum(p) for v in p], [v / sum(q) for v in q]
        total += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        gradient.append([temperature * (b - a) / len(student) for a, b in zip(p, q, strict=True)])
    return total / len(student), torch.tensor(gradient, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.5])
@pytest.mark.parametrize("shape", [(1, 2), (5, 3), (7, 11)])
@pytest.mark.parametrize(
    ("dtype", "forward", "backward"),
    # float32 has a relative step of 2**-23; a dozen roundings of values below 2**5. Gradients of bfloat16 are
    # rounded once, to a relative 2**-8 of values below 8.
    [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-4, 1e-5), (torch.bfloat16, 1e-4, 2**-6)],
)
def test_loss_and_gradient(temperature, shape, dtype, forward, backward):
    torch.manual_seed(3)
    student, teacher = (2 * torch.randn(2, *shape, dtype=torch.float64)).to(dtype)
    student.requires_grad_()
    loss = soft_target_loss(student, teacher, temperature)
    loss.backward()
    expected, gradient = plain(student.detach().double(), teacher.double(), temperature)
    assert loss.dtype == torch.promote_types(dtype, torch.float32)
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=forward)
    torch.testing.assert_close(student.grad.double(), gradient, rtol=0, atol=backward)


def test_equal_outputs_have_no_loss():
    logits = torch.randn(4, 5)
    assert soft_target_loss(logits, logits + 3.0, 2.0).item() == pytest.approx(0.0, abs=1e-6)
