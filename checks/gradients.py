"""Gradients of some outputs by the input embedding of each token."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from cadenza.checks.calls import Subject
from cadenza.checks.findings import NotCheckable


def by_embedding(
    subject: Subject, real: Tensor, total: Callable[[Tensor], Tensor], inputs: dict[str, Any]
) -> Tensor:
    """(batch, length) float64: the largest absolute gradient by an entry of each token's input embedding.

    Args:
        real: (batch, length) where tokens aren't padding; a model may gather those and skip the others.
        total: the output -> the scalar that is differentiated.
        inputs: the arguments of the model.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handles = [module.register_forward_hook(cut) for module in subject.embeddings]
    try:
        scalar = total(subject(**inputs))
    finally:
        for handle in handles:
            handle.remove()
    found = _derivatives(subject, scalar, leaves)
    return torch.stack([_placed(subject, each, real) for each in found]).sum(0)


def _derivatives(subject: Subject, scalar: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    if not leaves:
        _refuse(subject, "it doesn't call its input embeddings")
    if not scalar.requires_grad:
        _refuse(subject, "its output has no graph")
    try:
        found = torch.autograd.grad(scalar, leaves, allow_unused=True)
    except Exception as error:
        _refuse(subject, f"its backward fails: {(str(error) or 'no message').splitlines()[0]}")
    found = [each for each in found if each is not None]
    if not found:
        _refuse(subject, "its output doesn't depend on its input embeddings")
    return found


def _placed(subject: Subject, gradient: Tensor, real: Tensor) -> Tensor:
    largest = gradient.detach().abs().flatten(0, -2).amax(-1).double().cpu()  # (tokens,)
    if len(largest) == real.numel():
        return largest.view(real.shape)
    if len(largest) != int(real.sum()):
        _refuse(subject, f"it embeds {len(largest)} tokens of {real.numel()}")
    return torch.zeros(real.shape, dtype=torch.float64).masked_scatter(real, largest)


def _refuse(subject: Subject, reason: str) -> NoReturn:
    raise NotCheckable(f"{subject.name} can't be differentiated by token: {reason}; pass gradients=False")
