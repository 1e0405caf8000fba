"""The predictions of an evaluation: collected while it runs, gathered from all ranks, and written as CSV."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist
from torch import Tensor

from cadenza.data.labelled.sets import Example
from cadenza.recipe.errors import TrainingError


class Predictions(Callback):
    """Keeps the outputs of the last evaluation on each data set, by its label in the Trainer."""

    def __init__(self) -> None:
        self.kept: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)

    def eval_start(self, state: State, logger: Logger) -> None:
        self.kept[str(state.dataloader_label)] = []

    def eval_after_forward(self, state: State, logger: Logger) -> None:
        draws, outputs = state.batch["draw"], state.outputs
        self.kept[str(state.dataloader_label)].append((draws.cpu(), outputs.float().cpu()))

    def gathered(self, label: str, count: int) -> Tensor:
        """(count, classes) or (count,), the outputs of all examples in their order, on every rank.

        Where ranks evaluate an example twice, to have as many each, the later output stands.

        Raises:
            TrainingError: some examples have no output.
        """
        parts = [part for rank in dist.all_gather_object(self.kept[label]) for part in rank]
        draws, outputs = (torch.cat(each) for each in zip(*parts, strict=True))
        if missing := count - len(draws.unique()):
            raise TrainingError(
                f"{missing} of {count} examples of the evaluation {label!r} were not evaluated"
            )
        found = outputs.new_empty((count, *outputs.shape[1:]))
        found[draws] = outputs
        return found


def write(path: Path, examples: Sequence[Example], outputs: Tensor, labels: list[str]) -> None:
    """Write a row for each example: texts, label, prediction, and the probability of each class."""
    pairs = any(example.pair is not None for example in examples)
    head = ["text", *(["pair"] if pairs else []), "label", "prediction"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, *(f"probability of {name}" for name in labels)])
        for example, output in zip(examples, outputs, strict=True):
            texts = [example.text, *([example.pair] if pairs else [])]
            writer.writerow([*texts, *_answer(example.label, output, labels)])


def _answer(label: int | float, output: Tensor, labels: list[str]) -> list[Any]:
    if not labels:
        return [label, f"{float(output):.6g}"]
    shares = output.softmax(-1).tolist()
    return [labels[int(label)], labels[int(output.argmax())], *(f"{share:.6g}" for share in shares)]
