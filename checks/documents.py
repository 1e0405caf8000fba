"""Whether the documents of a packed row are kept apart."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from cadenza.checks.calls import Subject
from cadenza.checks.findings import Finding, NotCheckable, Passed
from cadenza.checks.gradients import by_embedding
from cadenza.checks.packing import Make, name_of, way
from cadenza.checks.rounding import difference
from cadenza.checks.rounding import tolerance as allowed
from cadenza.probes.sequences import PADDING, Draw, documents, each_document

LENGTHS = ((9, 5, 7), (6, 12, 3))
CHANGED = "change in other documents' outputs"
GRADIENT = "gradient by other documents' tokens"
ALONE = "difference from the document alone"
APART = (
    "No other document enters: the model counts positions, or limits what a token sees, otherwise than for "
    "the document alone"
)


def check_documents(
    model: nn.Module,
    by: str | Make = "document_ids",
    *,
    lengths: Sequence[Sequence[int]] = LENGTHS,
    gradients: bool = True,
    tolerance: float | None = None,
    seed: int = 0,
) -> Passed:
    """Check that `model` computes for each document of a packed row what it computes for it alone.

    Three comparisons, in evaluation mode:

    - other tokens in one document leave the outputs of all others as they are, within rounding;
    - the gradient of one document's outputs by the input embeddings of all others is exactly 0;
    - each document's outputs are those of a call with `input_ids` of this document alone, within rounding.

    Rounding is relative to the largest output, and follows from the dtype: see `cadenza.checks.rounding`.

    Args:
        model: a Hugging Face model, or Composer's wrapper around one; it is left as it was.
        by: how a batch tells its documents: `"document_ids"` (cadenza: 1, 2, ...; -1 padding),
            `"position_ids"` that restart in each document (transformers' `DataCollatorWithFlattening`),
            `"attention_mask"` (rows, 1, length, length) with restarting positions where the model takes any,
            or a function (input_ids, documents) -> arguments of the model, both (rows, length) on the CPU.
        lengths: for each row the lengths of its documents; a shorter row gets padding behind.
        gradients: whether to compare gradients; without them a leak below rounding isn't found.
        tolerance: the largest relative difference, in place of the one from the dtype.
        seed: the same seed gives the same tokens.

    Raises:
        CheckFailed: a document depends on another, or isn't computed as alone.
        NotCheckable: the model can't be called this way.
    """
    subject = Subject(model)
    result = Passed(f"check_documents of {subject.name} by {name_of(by)}")
    with subject.looked_at():
        packed = _Packed(subject, by, documents(lengths), tolerance, seed)
        for finding in packed.changed():
            result.note(finding)
        for finding in packed.gradients() if gradients else ():
            result.note(finding)
        for finding in packed.alone():
            result.note(finding, APART)
    return result


class _Packed:
    """A packed batch and its outputs.

    Args:
        numbers: (rows, length) the documents, as of `cadenza.probes.sequences.documents`.
    """

    def __init__(
        self, subject: Subject, by: str | Make, numbers: Tensor, relative: float | None, seed: int
    ) -> None:
        self.subject, self.numbers, self.real = subject, numbers, numbers != PADDING
        self.draw: Draw = subject.draw(seed, numbers.shape[1])
        self.make = way(by, subject, self.draw)
        self.ids = self.draw.tokens(*numbers.shape)
        self.outputs = self._first_outputs(by)
        self.tolerance = allowed(subject.model, self.outputs[self.real], relative)
        if difference(self._outputs(self.ids), self.outputs)[self.real].max() > self.tolerance:
            raise NotCheckable(f"{subject.name} returns something else when called again, in evaluation mode")

    def _first_outputs(self, by: str | Make) -> Tensor:
        try:
            return self._outputs(self.ids)
        except NotCheckable as error:
            if by != "attention_mask":
                raise
            raise NotCheckable(f"{error}; if it takes no such mask, pass a function as `by`") from error

    def changed(self) -> Iterator[Finding]:
        """Other tokens in one document; the outputs of the others."""
        for name, own in each_document(self.numbers):
            ids = torch.where(own, self.draw.others(self.ids), self.ids)
            moved = difference(self._outputs(ids), self.outputs)
            self._require(moved[own], f"the outputs of {name} don't depend on its tokens")
            yield self._worst(CHANGED, moved, self.real & ~own, f"other tokens in {name}", self.tolerance)

    def gradients(self) -> Iterator[Finding]:
        """The outputs of one document; the input embeddings of the others."""
        for name, own in each_document(self.numbers):
            total = _Weighted(own, self.draw.weights(*self.outputs[own].shape))
            found = by_embedding(self.subject, self.real, total, self.make(self.ids, self.numbers))
            self._require(found[own], f"the outputs of {name} have no gradient by its tokens")
            yield self._worst(GRADIENT, found, self.real & ~own, f"outputs of {name}", 0.0)

    def alone(self) -> Iterator[Finding]:
        """Each document in a call of its own."""
        for name, own in each_document(self.numbers):
            alone = self.subject.by_token((1, int(own.sum())), input_ids=self.ids[own][None])
            differs = torch.zeros(own.shape, dtype=torch.float64)
            differs[own] = difference(alone[0], self.outputs[own])
            yield self._worst(ALONE, differs, own, name, self.tolerance)

    def _outputs(self, ids: Tensor) -> Tensor:
        return self.subject.by_token(ids.shape, **self.make(ids, self.numbers))

    def _require(self, own: Tensor, otherwise: str) -> None:
        if not bool((own > 0).any()):
            raise NotCheckable(f"{self.subject.name}: {otherwise}: nothing could be seen")

    def _worst(self, what: str, values: Tensor, among: Tensor, cause: str, tolerance: float) -> Finding:
        chosen = torch.where(among, values.nan_to_num(torch.inf), -1.0)
        row, token = divmod(int(chosen.argmax()), chosen.shape[1])
        place = f"row {row}, place {token}, document {int(self.numbers[row, token])} ({cause})"
        return Finding(what, place, float(chosen[row, token].clamp(min=0)), tolerance)


class _Weighted:
    """A sum of one document's outputs with random weights: a plain sum is constant behind some norms."""

    def __init__(self, own: Tensor, weights: Tensor) -> None:
        self.own, self.weights = own, weights

    def __call__(self, output: Tensor) -> Tensor:
        chosen = output[self.own.to(output.device)]
        chosen = chosen.reshape(len(chosen), -1)  # (tokens, width)
        return (chosen * self.weights.to(chosen)).sum()
