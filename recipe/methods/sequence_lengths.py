"""Composer's sequence length warm-up on Cadenza's batches of text.

1. Before a batch, `SeqLengthWarmup.length_at` gives its length: a pure function of the time.
2. With `truncate`, the collator gets it. The loader's batch transform cuts the rows, then masks them, so that
   labels and counts of tokens are those of the cut rows.
3. Without, Composer makes more rows of whole ones after they are masked and counted.
"""

from typing import Any

import torch
from composer import algorithms
from composer.core import Event, State, TimeUnit
from composer.functional import set_batch_sequence_length
from composer.loggers import Logger
from composer.utils import reproducibility
from torch import Tensor

from cadenza.recipe.errors import RecipeError

NAME = "seq_length_warmup"
KEY = f"algorithms.{NAME}"
NAMES = {TimeUnit.BATCH: "batches", TimeUnit.SAMPLE: "samples", TimeUnit.TOKEN: "tokens"}


class SeqLengthWarmup(algorithms.SeqLengthWarmup):
    """Composer's, which cuts rows before they are masked and counted.

    Rows are cut before they are masked and counted: tokens and tokens/s are of the cut rows, the masking
    ratio holds in them, and a batch has a label if it has a token to predict. A row of at most the length
    stays as it is; a packed row or a window loses the documents behind the cut. `train.max_duration` may be
    in samples or tokens, too: the steps are Composer's, in that unit. With `truncate: false` rows are masked
    and counted, then made into more and shorter ones; the tokens that don't fill the last one are dropped, as
    in Composer.
    """

    def match(self, event: Event, state: State) -> bool:
        return event == Event.BEFORE_DATALOADER or super().match(event, state)

    def apply(self, event: Event, state: State, logger: Logger) -> Any:
        if event == Event.INIT:
            return super().apply(event, state, logger)
        if event == Event.BEFORE_DATALOADER:
            self._next = self.length_at(state)
            if self.truncate:
                collator = _collator(state)
                collator.length, collator.keep_end = self._next, self.preserve_end_of_sequence
            return None
        if not self._activated:
            self._activate_model(state, logger)
        if not self.truncate:
            state.batch = _more_rows(state.batch, self._next)
        rows = len(state.batch["input_ids"])
        logger.log_metrics({f"{NAME}/curr_seq_len": self._next, f"{NAME}/curr_bs": rows})
        return None

    def length_at(self, state: State) -> int:
        """The most tokens of a row of the batch that `state` is about to train on.

        Raises:
            RecipeError: the warm-up has no step, or more steps than training has batches, samples or tokens;
                or a duration that can't be counted.
        """
        end, unit = self._end(state)
        steps = (self.max_seq_length - self.min_seq_length) // self.step_size
        if not steps:
            problem = f"{self.min_seq_length} to {self.max_seq_length} tokens are less than one step_size"
            raise RecipeError(f"{KEY}: {problem}, {self.step_size}; lower min_seq_length or step_size")
        interval = int(end * self.duration) // steps
        if not interval:
            right = "raise its duration or step_size, or min_seq_length"
            raise RecipeError(f"{KEY}: training has fewer {NAMES[unit]} than the warm-up has steps; {right}")
        length = self.min_seq_length + self.step_size * (state.timestamp.get(unit).value // interval)
        return min(length, self.max_seq_length)

    def _end(self, state: State) -> tuple[int, TimeUnit]:
        """How long training lasts, and in what; epochs count by their batches, as Composer does."""
        end = state.max_duration
        if end is not None and end.unit == TimeUnit.EPOCH and state.dataloader_len is not None:
            return int(state.dataloader_len) * end.value, TimeUnit.BATCH
        if end is None or end.unit not in NAMES:
            raise RecipeError(
                f"{KEY}: train.max_duration must be in ba, sp or tok, or in ep of a finite source"
            )
        if end.unit == TimeUnit.TOKEN and not self.truncate:
            problem = "drops tokens that are counted, and train.max_duration is in them"
            raise RecipeError(f"{KEY}.truncate: false {problem}; leave it true, or name ba, sp or ep")
        return end.value, end.unit

    def _activate_model(self, state: State, logger: Logger) -> None:
        """Composer's pass over rows of the full length, which takes their memory before the first step.

        A resume does it again, so it leaves random numbers and buffers as they were.
        """
        batch, state.batch = state.batch, _whole(state, self.truncate)
        state.batch.pop("draw")  # Composer refuses tensors of one dimension
        random = reproducibility.get_rng_state()
        kept = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
        super()._activate_model(state, logger)
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
        reproducibility.load_rng_state(random)
        state.batch = batch


def _collator(state: State) -> Any:
    """The collator of the loader, which cuts rows."""
    collator: Any = getattr(state.dataloader, "collate_fn", None)
    if not hasattr(collator, "shortened"):
        name, right = type(collator).__name__, "text of a recipe for a language model"
        raise RecipeError(f"{KEY} can't cut the rows of {name} before they are counted; it needs {right}")
    return collator


def _whole(state: State, truncate: bool) -> dict[str, Tensor]:
    """A batch that isn't cut, with labels."""
    if not truncate:
        return dict(state.batch)
    collator = _collator(state)
    length, collator.length = collator.length, None
    batch = getattr(collator, "mask", collator.shortened)(collator.whole)
    collator.length = length
    return dict(batch)


def _more_rows(batch: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    """The batch in rows of `length` tokens; a row has the draw of the row of its first token."""
    draws, before = batch.pop("draw"), batch["input_ids"].shape[1]
    if "document_ids" in batch:
        batch["document_ids"] = numbered(batch["document_ids"])
    batch = dict(set_batch_sequence_length(batch, length, truncate=False))
    batch["draw"] = _draws(draws, before, *batch["input_ids"].shape)
    return batch


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
