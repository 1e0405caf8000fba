"""What `cadenza data` says of labelled text: the classes, the lengths, and what batches hold."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.dataset import LabelledExamples
from cadenza.data.labelled.sets import Example, Sets

SHOWN = 12  # classes that are counted by name
BINS = 40


def lines(
    sets: Sets, data: LabelledExamples, tokenizer: Any, cfg: LabelledConfig, batch: int
) -> Iterator[str]:
    """A line for each subject.

    Args:
        data: the training examples.
        batch: examples of a training batch.
    """
    yield f"for training: {_labels(sets.train, sets.labels)}"
    yield f"for evaluation: {_labels(sets.evaluation, sets.labels)}"
    for name, examples in sets.others.items():
        yield f"for evaluation, {name}: {_labels(examples, sets.labels)}"
    lengths = data.lengths()
    half, most, longest = np.quantile(lengths, (0.5, 0.9, 1.0)).round().astype(int)
    yield (
        f"tokens of a training example: median {half:,}, 90 % up to {most:,}, longest {longest:,}; "
        f"data.max_seq_len is {cfg.max_seq_len:,}"
    )
    yield f"padding in batches of {batch:,}: {padding(lengths, batch):.1%} of the columns"
    unknown = "nothing" if tokenizer.unk_token_id is None else f"{data.unknown_share:.2%} of the tokens"
    yield f"unknown to the tokenizer: {unknown}"


def padding(lengths: np.ndarray, batch: int) -> float:
    """The share of padding in shuffled batches, each as long as its longest example."""
    shuffled = np.random.default_rng(0).permutation(lengths)
    parts = [shuffled[start : start + batch] for start in range(0, len(shuffled), batch)]
    return 1 - lengths.sum() / sum(len(part) * part.max() for part in parts)


def examples(data: LabelledExamples, labels: list[str], tokenizer: Any, count: int) -> Iterator[str]:
    """The first examples as the model sees them, with their labels."""
    for number in range(min(count, len(data))):
        label = data.examples[number].label
        shown = labels[int(label)] if labels else f"{label:g}"
        yield f"{shown}: {tokenizer.decode(data[number]['input_ids'])}"


def draw(data: LabelledExamples, cfg: LabelledConfig, path: Path) -> None:
    """Draw how many training examples have how many tokens."""
    from matplotlib.figure import Figure  # no window: a server has none

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(data.lengths(), bins=BINS)
    axes.axvline(cfg.max_seq_len, color="black", linestyle="--", label=f"max_seq_len {cfg.max_seq_len}")
    title = f"{', '.join(cfg.names)}, for training"
    axes.set(xlabel="tokens of an example", ylabel="examples", title=title)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _labels(found: list[Example], labels: list[str]) -> str:
    """How many examples there are, and of each class or in which range."""
    values = [example.label for example in found]
    if not labels:
        return f"{len(found):,} examples, labels from {min(values):g} to {max(values):g}"
    counts = [(labels[int(label)], count) for label, count in Counter(values).most_common()]
    named = ", ".join(f"{name} {count:,}" for name, count in counts[:SHOWN])
    rest = f", and {len(counts) - SHOWN} more classes" if len(counts) > SHOWN else ""
    return f"{len(found):,} examples ({named}{rest})"
