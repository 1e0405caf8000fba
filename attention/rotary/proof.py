"""Proof, on the model itself, that exact rotary positions change no number but by rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.proof.subject import refuse_on_meta, use_own_kernels
from cadenza.attention.rotary.embedding import ExactTables, RotatedExactly
from cadenza.attention.rotary.tables import new_rotary
from cadenza.probes.untouched import untouched
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import mix, stock_class, unmix

ROWS, TOKENS = 2, 8


def prove(base: Any) -> None:
    """Compare `base` with its stock code, whose rotary embeddings are built anew, on short sequences.

    On the meta device there are no numbers to compare; the call shows that nothing but attention reads the
    tables. The model's mode, buffers and the state of random generators stay.

    Raises:
        SurgeryError: a call fails, the last hidden states differ by more than rounding, or the model is on
            the meta device and of no tested family.
    """
    name = stock_class(base).__name__
    with untouched(base), torch.no_grad():
        base.eval()
        use_own_kernels(base)
        found = _hidden(base, f"{name} uses rotary positions in its own way, or can't run as it is")
        if found.is_meta:
            return refuse_on_meta(base)
        with _stock_rotation(base):
            expected = _hidden(base, f"{name} can't be compared with its stock code")
    scale, error = expected.abs().max().item(), (found - expected).abs().max().item()
    tolerance = max(1e-4, 32 * torch.finfo(expected.dtype).eps)  # a few roundings in each of some ten layers
    if not error <= tolerance * scale:
        raise SurgeryError(
            f"{name} uses rotary positions in its own way: bf16_safe_rope changes the last hidden state by "
            f"{error:.1e} of {scale:.1e}, which is more than rounding. Nothing was changed"
        )


def _hidden(base: Any, failure: str) -> Tensor:
    try:
        embeddings = base.get_input_embeddings().weight
        ids = torch.arange(ROWS * TOKENS).view(ROWS, TOKENS) % embeddings.shape[0]
        return base(input_ids=ids.to(embeddings.device))[0]
    except Exception as error:
        hint = "; load its weights first" if next(base.parameters()).is_meta else ""
        why = f"{type(error).__name__}: {error}"
        raise SurgeryError(f"{failure} ({why}). Nothing was changed{hint}") from error


@contextmanager
def _stock_rotation(base: Any) -> Iterator[None]:
    """Stock code in place of the mixins, and new rotary embeddings, whose frequencies no cast has rounded."""
    mixins = ExactTables, RotatedExactly
    mixed: list[Any] = [(m, mixin) for m in base.modules() for mixin in mixins if isinstance(m, mixin)]
    states = [(module, vars(module)) for module, mixin in mixed if mixin is ExactTables]
    device = next(base.parameters()).device
    for module, mixin in mixed:
        unmix(module, mixin)
    for module, _ in states:
        module.__dict__ = vars(new_rotary(module).to(device))
    try:
        yield
    finally:
        for module, state in states:
            module.__dict__ = state
        for module, mixin in mixed:
            mix(module, mixin)
