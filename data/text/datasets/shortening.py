"""Rows cut at a length that may change from batch to batch, in the main process."""

from composer.functional import set_batch_sequence_length
from torch import Tensor

__all__ = ["Shortening"]


class Shortening:
    """A collator whose batches can be cut, before anything is masked or counted.

    Attributes:
        length: the most tokens of a row; None cuts none. It needs to be set in the main process alone.
        keep_end: whether the last token of a row that is cut becomes the last one of what is left.
        whole: the last batch that came while `length` was set, as it was before.
    """

    length: int | None = None
    keep_end = False
    whole: dict[str, Tensor]

    def shortened(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with all tensors by token (rows, columns) cut to (rows, at most `length`).

        A shorter row is as before. A packed row, or a window, loses the documents behind the cut.
        """
        if self.length is None:
            return batch
        self.whole = batch
        by_token = {name: values for name, values in batch.items() if values.ndim == 2}
        return {**batch, **set_batch_sequence_length(by_token, self.length, True, self.keep_end)}
