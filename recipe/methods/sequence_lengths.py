"""Composer's sequence length warm-up on Cadenza's batches of text."""

from typing import Any

import torch
from composer import algorithms
from composer.core import Event, State
from composer.loggers import Logger
from torch import Tensor

from cadenza.recipe.errors import RecipeError

KEY = "algorithms.seq_length_warmup"


class SeqLengthWarmup(algorithms.SeqLengthWarmup):
    """Composer's, which refuses tensors of one dimension: it isn't shown the draw numbers of the rows.

    Composer counts a batch's tokens before this algorithm shortens its rows, so tokens and tokens/s of a run
    are those of the whole rows. Labels are chosen before, too: a short batch may have none, and a loss of 0.
    """

    def apply(self, event: Event, state: State, logger: Logger) -> Any:
        if event != Event.AFTER_DATALOADER:
            return super().apply(event, state, logger)
        draws, before = state.batch.pop("draw"), state.batch["input_ids"].shape[1]
        if "document_ids" in state.batch and not self.truncate:
            state.batch["document_ids"] = numbered(state.batch["document_ids"])
        try:
            super().apply(event, state, logger)
        except ZeroDivisionError as error:
            right = "raise its duration or step_size, or lower min_seq_length"
            raise RecipeError(
                f"{KEY}: training has fewer batches than the warm-up has steps; {right}"
            ) from error
        except NotImplementedError as error:
            raise RecipeError(f"{KEY}: train.max_duration must be in batches or epochs") from error
        state.batch["draw"] = _draws(draws, before, *state.batch["input_ids"].shape)
        return None


def numbered(document_ids: Tensor) -> Tensor:
    """`document_ids` (rows, length) whose numbers differ across rows, since a new row may hold parts of two.

    Raises:
        RecipeError: there are anchors, which would stand in other rows than their documents.
    """
    if bool((document_ids == 0).any()):
        raise RecipeError(f"{KEY}.truncate: false cuts rows, and documents lose their anchors; leave it true")
    row = torch.arange(len(document_ids), device=document_ids.device)[:, None]
    return torch.where(document_ids > 0, document_ids + row * int(document_ids.max()), document_ids)


def _draws(draws: Tensor, before: int, rows: int, length: int) -> Tensor:
    """The draw of each row's first token; `truncate=False` cuts rows of `before` tokens into others."""
    if rows == len(draws):
        return draws
    return draws[torch.arange(rows, device=draws.device) * length // before]
