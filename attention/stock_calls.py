"""Which calls the stock code computes, because they need what the computation by document doesn't have."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.call import KNOWN, OWN
from cadenza.attention.positions import CACHES
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import uncompiled

ARGUMENTS = (*CACHES, "encoder_hidden_states", "encoder_attention_mask", "cu_seq_lens_q", "cu_seq_lens_k")
READ = sorted({*KNOWN, *OWN, "position_bias"})  # attention functions read them, whoever passes them
TRACED = "it is traced, and the lengths of documents would become constants"
ON_PADDING = "labels are predicted from padding tokens"
IGNORED = -100


def needs_stock(named: Mapping[str, Any], others: Mapping[str, Any], config: Any) -> str | None:
    """The reason if an argument of a base model is one of the stock code's.

    Args:
        named: arguments by the names of the model's own parameters.
        others: further keyword arguments, which the model hands on to attention.
    """
    given = {**others, **named}
    for name in (*ARGUMENTS, *(name for name in READ if name in others)):
        if given.get(name) is not None:
            return f"it passes {name}"
    if given.get("use_cache"):
        return "it passes use_cache=True"
    if given.get("output_attentions", getattr(config, "output_attentions", False)):
        return "it asks for attention weights"
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return TRACED if tracing or torch.compiler.is_exporting() else None


@uncompiled  # reads values
def starts_anew(positions: Tensor | None, mask: Tensor | None) -> str | None:
    """The reason if `position_ids` start anew, which without a mask stock decoders take for new documents."""
    if mask is None and positions is not None and bool((positions.diff(dim=-1) != 1).any()):
        return "position_ids start anew within a row; document_ids would keep documents apart"
    return None


@uncompiled  # reads values
def on_padding(labels: Tensor | None, mask: Tensor | None, causal: bool) -> bool:
    """Whether a label is predicted from padding, whose hidden state only the stock code computes.

    Args:
        labels: (batch, length) integers, -100 for none; other shapes and numbers are labels of rows.
        mask: (batch, length), 0 at padding.
        causal: whether a label is predicted from the token before it.
    """
    if labels is None or mask is None or labels.shape != mask.shape or labels.is_floating_point():
        return False
    wanted, padding = labels != IGNORED, mask == 0
    found = (wanted & padding).any() | (causal and (wanted[:, 1:] & padding[:, :-1]).any())
    return bool(found)


def leave_to_stock(plan: Any, reason: str, documents: bool, training: bool) -> None:
    """Warn that the stock code computes a call that isn't possible by document.

    A warning ends a compiled graph, so that generation in one graph gets none; a training step always does.

    Raises:
        SurgeryError: the call passes `document_ids`, or the kernel was asked for by name.
    """
    if documents:
        raise SurgeryError(f"document_ids: this call can't be computed by document, because {reason}")
    if plan.kernel not in (None, "auto"):
        raise SurgeryError(
            f"flash_attention kernel {plan.kernel!r} can't compute this call, because {reason}; "
            "with kernel 'auto' the stock code does"
        )
    name = "unpadding" if plan.layout is not None else "flash_attention"
    if training or not torch.compiler.is_compiling():
        _warn(f"{name}: the stock code computes this call, because {reason}")


@uncompiled
def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)
