"""Metrics of a language model from the scores of its rows: losses and hits, without logits."""

from typing import Any

import torch
from composer.metrics import LanguageCrossEntropy, LanguagePerplexity, MaskedAccuracy
from torch import Tensor

from cadenza.losses.linear_cross_entropy import RowScores
from cadenza.losses.masked_lm import IGNORED
from cadenza.surgery.errors import SurgeryError


def _add_losses(metric: Any, scores: RowScores) -> None:
    metric.sum_loss += scores.losses.sum().to(metric.sum_loss)
    metric.total_items += len(scores.labels)


def _add_hits(metric: Any, scores: RowScores) -> None:
    if scores.hits is None:
        raise SurgeryError("chunked_loss: train metrics were set after it was applied; apply it again")
    metric.correct += scores.hits.sum().to(metric.correct)
    metric.total += len(scores.labels)


UPDATES = {
    LanguageCrossEntropy: _add_losses,
    LanguagePerplexity: _add_losses,
    MaskedAccuracy: _add_hits,
}


def refuse_unknown(metrics: Any) -> None:
    """Raise if one of `metrics` (name -> metric, or None) needs logits."""
    for name, metric in (metrics or {}).items():
        if type(metric) not in UPDATES:
            known = ", ".join(each.__name__ for each in UPDATES)
            raise SurgeryError(f"chunked_loss: the metric {name} needs logits; known without are {known}")
        if metric.ignore_index != IGNORED:
            raise SurgeryError(
                f"chunked_loss: the metric {name} ignores {metric.ignore_index}, not {IGNORED}"
            )


def update(metric: Any, scores: RowScores) -> None:
    """Update `metric` by the rows of a batch.

    Raises:
        SurgeryError: it needs logits.
    """
    refuse_unknown({type(metric).__name__: metric})
    metric._computed, metric._update_count = None, metric._update_count + 1  # as torchmetrics' own wrapper
    with torch.no_grad():
        UPDATES[type(metric)](metric, scores)


def same_labels(scores: RowScores, labels: Tensor) -> bool:
    """Whether `scores` are those of a batch with `labels`, of any shape, shifted if the model shifts."""
    kept = labels[labels != IGNORED]
    return torch.equal(kept.to(scores.labels.device), scores.labels)
