"""The classes of a run, in the order that the loaded model has them in.

A classifier's outputs have an order, which the data doesn't know: its classes are sorted by name. A model
with the same classes keeps its order and its output layer. A checkpoint, or a model that is only evaluated,
must know all classes of the data.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from cadenza.data.labelled.sets import Example, Sets
from cadenza.models.text_classifier import classes_in, labels_of
from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.runs.loaded import language_model
from cadenza.recipe.schema import ClassificationRecipe
from cadenza.surgery.checkpoint import read


def ordered(sets: Sets, recipe: ClassificationRecipe, checkpoint: str | Path | None, scored: bool) -> Sets:
    """`sets` with the classes of what the run loads, if that is a classifier of these classes.

    Args:
        checkpoint: what the run loads in place of `model.pretrained`.
        scored: whether the model is only evaluated.

    Raises:
        RecipeError: a class that the checkpoint or the evaluated model doesn't know, or no classifier.
    """
    name = str(checkpoint or recipe.model.pretrained)
    known = _known(recipe, checkpoint)
    fixed = scored or checkpoint is not None
    if known is None:
        if scored:
            raise RecipeError(
                f"model.pretrained: {name} is no classifier of these labels; fine-tune it first"
            )
        return sets
    if known == sets.labels:
        return sets
    if recipe.data.labels is not None and set(known) >= set(sets.labels):
        raise RecipeError(f"data.labels is {sets.labels}; {name} has {known}: leave data.labels out")
    if set(known) == set(sets.labels) or (fixed and known and sets.labels and set(known) > set(sets.labels)):
        return relabelled(sets, known)
    if fixed:
        raise RecipeError(
            f"data.label_field: the classes are {_shown(sets.labels)}; {name} has {_shown(known)}"
        )
    show(f"the output layer is new: {_shown(sets.labels)}; {name} has {_shown(known)}")
    return sets


def relabelled(sets: Sets, labels: list[str]) -> Sets:
    """`sets` with the ids of classes that they have in `labels`."""
    ids = [labels.index(name) for name in sets.labels]

    def each(examples: list[Example]) -> list[Example]:
        return [replace(example, label=ids[int(example.label)]) for example in examples]

    others = {name: each(found) for name, found in sets.others.items()}
    return Sets(each(sets.train), each(sets.evaluation), others, labels)


def _known(recipe: ClassificationRecipe, checkpoint: str | Path | None) -> list[str] | None:
    if checkpoint is not None:
        held: dict[str, Any] = (
            {} if "://" in str(checkpoint) else language_model(read(checkpoint, True)) or {}
        )
        content = held.get("content")
        return None if content is None else classes_in(content)
    return None if recipe.model.pretrained is None else labels_of(recipe.model.pretrained)


def _shown(labels: list[str]) -> str:
    if not labels:
        return "a number"
    return ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
