"""What a pretrained model brings into a recipe: its folder, and the techniques that it was changed by.

Its checkpoints then name them, so that a resume and `export` build the same model.
"""

import dataclasses
from typing import Any, TypeVar

from cadenza.algorithms import REGISTRY
from cadenza.models.pretrained import model_folder, recorded
from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.schema import ClassificationRecipe, Recipe
from cadenza.surgery.errors import CheckpointError

AnyRun = TypeVar("AnyRun")
TextRecipe = Recipe | ClassificationRecipe
OF_MASKED_LM = "sparse_prediction"  # of its head, which a classifier doesn't have


def started(recipe: AnyRun) -> AnyRun:
    """`recipe` with what `model.pretrained` brings; see `with_folders` and `with_recorded`."""
    if not isinstance(recipe, TextRecipe) or recipe.model.pretrained is None:
        return recipe
    return with_recorded(with_folders(recipe))


def with_folders(recipe: Any) -> Any:
    """`recipe` with folders in place of runs and checkpoints in `model.pretrained` and `tokenizer.name`."""
    named, trusted = recipe.model.pretrained, recipe.train.trust_load_path
    try:
        folder = model_folder(named, trusted)
    except CheckpointError as error:
        said = str(error).replace("pass trusted=True (--trust)", "set train.trust_load_path=true")
        raise RecipeError(f"model.pretrained: {said}") from error
    if folder == named:
        return recipe
    show(f"model.pretrained: {named} is read from {folder}")
    words = recipe.tokenizer.name
    tokenizer = dataclasses.replace(recipe.tokenizer, name=folder if words == named else words)
    return _with(recipe, model=dataclasses.replace(recipe.model, pretrained=folder), tokenizer=tokenizer)


def with_recorded(recipe: Any) -> Any:
    """`recipe` with the techniques of `model.pretrained` in its `algorithms`; as it is, if there are none.

    Raises:
        RecipeError: the model isn't a stock one, and the recipe has one of them with other options; or the
            recipe can't have one.
        ModelError: one that this version doesn't have.
    """
    if not isinstance(recipe, TextRecipe) or recipe.model.pretrained is None:
        return recipe
    found = recorded(recipe.model.pretrained)
    if isinstance(recipe, ClassificationRecipe):
        found.pop(OF_MASKED_LM, None)
    if "drop_rope" in recipe.algorithms and found.pop("bf16_safe_rope", None) is not None:
        show("model.pretrained: bf16_safe_rope is left out, because drop_rope leaves nothing to rotate")
    if not all(getattr(REGISTRY[name], "keeps_outputs", False) for name in found):  # else it loads as stock
        for name in found.keys() & recipe.algorithms.keys():
            _refuse_other_options(name, found[name], recipe)
    if "vocab_padding" in found:  # new words may make its vocabulary a multiple
        found["vocab_padding"]["strict"] = False
    missing = {name: options for name, options in found.items() if name not in recipe.algorithms}
    return _with(recipe, algorithms={**missing, **recipe.algorithms}) if missing else recipe


def _refuse_other_options(name: str, theirs: dict[str, Any], recipe: TextRecipe) -> None:
    ours = REGISTRY[name](**recipe.algorithms[name]).options
    if ours != theirs:
        changed = f"model.pretrained {recipe.model.pretrained} was changed by it with {theirs}"
        raise RecipeError(f"algorithms.{name} is {ours}; {changed}: leave algorithms.{name} out")


def _with(recipe: Any, **changes: Any) -> Any:
    try:
        changed = dataclasses.replace(recipe, **changes)
    except ValueError as error:
        where = f"model.pretrained: {recipe.model.pretrained} has techniques that don't fit the recipe"
        raise RecipeError(f"{where} ({error})") from error
    changed.sources = recipe.sources
    return changed
