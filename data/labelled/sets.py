"""Labelled examples for training and for evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.labels import check_labels, check_trained, labels_of
from cadenza.data.labelled.rows import Row
from cadenza.data.labelled.sources import Part, hub_name, of_files, of_hub, refuse_shared
from cadenza.data.labelled.split import divided, first
from cadenza.data.text.files.paths import is_local


@dataclass(frozen=True, slots=True)
class Example:
    """One text or a pair, with the id of a class or a number; `place` is such as `movies.csv line 5`."""

    text: str
    pair: str | None
    label: int | float
    place: str


@dataclass
class Sets:
    """The examples of a recipe; `labels` are the names of the classes by id, none if labels are numbers."""

    train: list[Example]
    evaluation: list[Example]
    others: dict[str, list[Example]]
    labels: list[str]


def read(cfg: LabelledConfig) -> Sets:
    """The examples that `cfg` names.

    Raises:
        DataError: what can't be read, a row without texts or a label, or labels that don't fit.
    """
    training, evaluation = _own(cfg)
    others = {name: _other(name, source, cfg) for name, source in cfg.other_eval.items()}
    labels = labels_of(training, cfg)
    if cfg.classes:
        for part in (training, evaluation, *others.values()):
            check_labels(part, labels, option=cfg.labels is not None)
        for part in (evaluation, *others.values()):
            check_trained(part, training)
    train, held = (
        first(part.rows, limit, cfg.split_seed, cfg.classes)
        for part, limit in ((training, cfg.train_examples), (evaluation, cfg.eval_examples))
    )
    found = {name: _examples(part.rows, labels) for name, part in others.items()}
    return Sets(_examples(train, labels), _examples(held, labels), found, labels)


def texts(sets: Sets) -> Iterator[str]:
    """The texts of the training examples, those of pairs one after the other."""
    for example in sets.train:
        yield example.text
        if example.pair is not None:
            yield example.pair


def _own(cfg: LabelledConfig) -> tuple[Part, Part]:
    """What is trained on, and what is evaluated by the way."""
    name = hub_name(cfg)
    training = (
        of_hub(name, cfg.split, cfg, "data.split") if name else of_files(cfg.source, cfg, "data.source")
    )
    if cfg.eval_source is not None:
        evaluation = of_files(cfg.eval_source, cfg, "data.eval_source")
        refuse_shared(cfg)
        return training, evaluation
    if name:
        return training, of_hub(name, cfg.eval_split, cfg, "data.eval_split")
    sides = divided(training.rows, cfg.eval_fraction, cfg.split_seed, cfg.classes)
    train, evaluation = (replace(training, rows=rows) for rows in sides)
    return train, evaluation


def _other(name: str, source: str | list[str], cfg: LabelledConfig) -> Part:
    """Local files or, of a Hub data set, a split."""
    found, key = hub_name(cfg), f"data.other_eval.{name}"
    if found and isinstance(source, str) and not is_local(source):
        return of_hub(found, source, cfg, key)
    return of_files(source, cfg, key)


def _examples(rows: list[Row], labels: list[str]) -> list[Example]:
    if not labels:
        return [Example(row.text, row.pair, float(row.label), row.place) for row in rows]
    ids = {name: number for number, name in enumerate(labels)}
    return [Example(row.text, row.pair, ids[str(row.label)], row.place) for row in rows]
