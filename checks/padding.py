"""Whether the outputs of real tokens depend on padding."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.checks.calls import Subject
from cadenza.checks.findings import Finding, NotCheckable, Passed
from cadenza.checks.gradients import by_embedding
from cadenza.checks.rounding import difference
from cadenza.checks.rounding import tolerance as allowed
from cadenza.probes.sequences import padded

LENGTHS = (8, 13, 11)
CONTENT = "change with the tokens that stand in the padding"
GRADIENT = "gradient of real tokens' outputs by padding"
ALONE = "difference from the row alone"
COUNTED = "Positions count the padding: with position_ids that count real tokens the outputs are right"

Make = Callable[[Tensor, Tensor], dict[str, Any]]


def check_padding(
    model: nn.Module,
    inputs: Make | None = None,
    *,
    sides: str | Sequence[str] = ("right", "left"),
    amounts: Sequence[int] = (0, 1, 6),
    lengths: Sequence[int] = LENGTHS,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> Passed:
    """Check that `model` computes for a padded row what it computes for the row alone.

    Three comparisons for each side, in evaluation mode:

    - other tokens in the places of padding leave the outputs of real tokens as they are, within rounding;
    - the gradient of real tokens' outputs by the input embeddings of padding is exactly 0;
    - with each amount of padding, real tokens' outputs are those of the row alone, within rounding.

    Rounding is relative to the largest output, and follows from the dtype: see `cadenza.checks.rounding`. A
    model without an output by token, such as a classifier, is compared by rows.

    Args:
        model: a Hugging Face model, or Composer's wrapper around one; it is left as it was.
        inputs: (input_ids, attention_mask) -> arguments of the model, both (rows, length) on the CPU, the
            mask 1 at real tokens; None: these two are the arguments.
        sides: `"right"`, `"left"`, or both.
        amounts: the padding tokens of the longest row; shorter rows have more.
        lengths: the real tokens of each row.
        gradients: whether to compare gradients; without them a dependence below rounding isn't found.
        tolerance: the largest relative difference, in place of the one from the dtype.
        seed: the same seed gives the same tokens.

    Raises:
        CheckFailed: outputs of real tokens depend on padding.
        NotCheckable: the model can't be called this way.
    """
    subject, sides = Subject(model), [sides] if isinstance(sides, str) else list(sides)
    _refuse_none(sides, amounts)
    result = Passed(f"check_padding of {subject.name}, {' and '.join(sides)}")
    with subject.looked_at():
        rows = _Rows(subject, inputs, lengths, max(amounts), tolerance, seed)
        for side in sides:
            _compare([_Batch(rows, side, amount) for amount in amounts], gradients, result)
    return result


def _refuse_none(sides: list[str], amounts: Sequence[int]) -> None:
    if not amounts or not sides or not set(sides) <= {"right", "left"}:
        raise NotCheckable(f"sides={sides}, amounts={amounts}; choose 'right', 'left' or both, and an amount")


def _compare(batches: list["_Batch"], gradients: bool, result: Passed) -> None:
    """Note what one side's batches show, the last of which has the most padding."""
    result.note(batches[-1].content())
    if gradients:
        result.note(batches[-1].gradient())
    for batch in batches:
        finding = batch.alone()
        result.note(finding, "" if finding.passes else batch.hint())


class _Rows:
    """Rows of tokens, and their outputs alone."""

    def __init__(
        self,
        subject: Subject,
        inputs: Make | None,
        lengths: Sequence[int],
        most: int,
        relative: float | None,
        seed: int,
    ) -> None:
        self.subject, self.draw = subject, subject.draw(seed, max(lengths) + most)
        self.stated = inputs is not None
        self.make: Make = inputs or (lambda ids, mask: {"input_ids": ids, "attention_mask": mask})
        self.rows = [self.draw.tokens(length) for length in lengths]
        alone = [subject.numbers(**self.make(row[None], torch.ones_like(row[None]))) for row in self.rows]
        # A classifier has one output for each row.
        self.by_token = all(out.shape[1:2] == row.shape for out, row in zip(alone, self.rows, strict=True))
        self.expected = torch.cat([out.flatten(0, 1) if self.by_token else out for out in alone])
        self.expected = self.expected.reshape(len(self.expected), -1)
        self.tolerance = allowed(subject.model, self.expected, relative)

    def real(self, output: Tensor, mask: Tensor) -> Tensor:
        """(tokens or rows, width), what is compared."""
        chosen = output[mask.bool().to(output.device)] if self.by_token else output
        return chosen.reshape(len(chosen), -1)

    def place(self, number: int, mask: Tensor) -> str:
        """The name of what `real` has at `number`."""
        if not self.by_token:
            return f"row {number}"
        row, token = mask.nonzero()[number].tolist()
        return f"row {row}, real token {int(mask[row, :token].sum())}"


class _Batch:
    """Rows padded on one side."""

    def __init__(self, rows: _Rows, side: str, amount: int) -> None:
        self.rows, self.subject = rows, rows.subject
        self.name = f"{side} padding, {amount} in the longest row"
        shape = (len(rows.rows), max(len(row) for row in rows.rows) + amount)
        pad, self.others = self.subject.pad_token, rows.draw.tokens(*shape)
        content = rows.draw.others(self.others) if pad is None else torch.full(shape, pad)
        self.ids, self.mask = padded(rows.rows, amount, side, content)

    def content(self) -> Finding:
        """Other tokens in the places of padding."""
        others = torch.where(self.mask.bool(), self.ids, self.others)
        return self._worst(CONTENT, difference(self._outputs(others), self._outputs(self.ids)))

    def gradient(self) -> Finding:
        """Real tokens' outputs by the input embeddings of padding."""
        weights, real = self.rows.draw.weights(*self.rows.expected.shape), self.mask.bool()

        def total(output: Tensor) -> Tensor:
            # A plain sum is constant behind some norms.
            chosen = self.rows.real(output, self.mask)
            return (chosen * weights.to(chosen)).sum()

        found = by_embedding(self.subject, real, total, self.rows.make(self.ids, self.mask))
        found = torch.where(real, 0.0, found.nan_to_num(torch.inf))
        row, place = divmod(int(found.argmax()), found.shape[1])
        return Finding(GRADIENT, f"row {row}, place {place} ({self.name})", float(found.max()), 0.0)

    def alone(self) -> Finding:
        """The outputs of the rows alone."""
        return self._worst(ALONE, difference(self._outputs(self.ids), self.rows.expected))

    def hint(self) -> str:
        """What would be right, where position ids that count real tokens make it right."""
        if self.rows.stated or "position_ids" not in self.subject.arguments:
            return ""
        counted = (self.mask.cumsum(1) - 1).clamp(min=0)
        right = difference(self._outputs(self.ids, position_ids=counted), self.rows.expected)
        return COUNTED if right.max() <= self.rows.tolerance else ""

    def _outputs(self, ids: Tensor, **more: Tensor) -> Tensor:
        output = self.subject.numbers(**self.rows.make(ids, self.mask), **more)
        return self.rows.real(output, self.mask)

    def _worst(self, what: str, values: Tensor) -> Finding:
        values = values.nan_to_num(torch.inf)
        where = f"{self.rows.place(int(values.argmax()), self.mask)} ({self.name})"
        return Finding(what, where, float(values.max()), self.rows.tolerance)
