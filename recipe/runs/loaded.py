"""What a checkpoint holds, against the recipe that loads it: what can't be loaded, and what is said of it."""

import json
from pathlib import Path
from typing import Any

from cadenza.algorithms import REGISTRY
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.methods import COMPOSERS
from cadenza.recipe.runs.kept_recipe import LOADED, differences, of_checkpoint
from cadenza.recipe.schema import ClassificationRecipe, ImageRecipe, Recipe, Run
from cadenza.surgery.checkpoint import parse, saved_algorithms

METHODS = {**COMPOSERS, **REGISTRY}
TEXT, CLASSES, IMAGES = "a language model", "a text classifier", "an image classifier"
CLIPPING = "gradient_clipping"  # which train.clip_norm chooses, too
NAMES = {cls.__name__: name for name, cls in METHODS.items()}


def refuse_other_model(path: str | Path, state: dict[str, Any], recipe: Run) -> None:
    """Raise if the checkpoint holds another kind or type of model than the recipe trains.

    Raises:
        RecipeError: the message names both.
    """
    held, ours = language_model(state), _kind(recipe)
    theirs = IMAGES if held is None else _kind_of_class(str(held.get("class")))
    if theirs != ours:
        right = "; to fine-tune it, name it in model.pretrained" if (theirs, ours) == (TEXT, CLASSES) else ""
        raise RecipeError(f"train.load_path: {path} holds {theirs}; this recipe is for {ours}{right}")
    if not isinstance(recipe, Recipe | ClassificationRecipe) or not held or recipe.model.pretrained:
        return
    theirs = (held.get("content") or {}).get("model_type", recipe.model.model_type)
    if theirs != recipe.model.model_type:
        ours = recipe.model.model_type
        raise RecipeError(f"train.load_path: {path} holds a {theirs}; model.model_type is {ours!r}")


def _kind(recipe: Run) -> str:
    return {ClassificationRecipe: CLASSES, ImageRecipe: IMAGES}.get(type(recipe), TEXT)


def _kind_of_class(name: str) -> str:
    return CLASSES if name.endswith("ForSequenceClassification") else TEXT


def language_model(state: dict[str, Any]) -> dict[str, Any] | None:
    """What the checkpoint says of its Hugging Face model; None if it holds none."""
    entry = (state.get("integrations") or {}).get("huggingface")
    return None if entry is None else (entry.get("model") or {}).get("config") or {}


def refuse_switched_off(path: str | Path, state: dict[str, Any], recipe: Run, weights_only: bool) -> None:
    """Raise if the recipe leaves out an algorithm of the checkpoint that loading it needs.

    Composer would apply it nevertheless, or drop what it has learned.

    Raises:
        RecipeError: the message names both ways out.
    """
    clipped = [] if recipe.train.clip_norm is None else [CLIPPING]
    for name, text in algorithms(state).items():
        chosen = name in (*recipe.algorithms, *clipped)
        if chosen or (weights_only and not METHODS[name].required_on_load()):
            continue
        again = "train.clip_norm=NORM" if name == CLIPPING else f"algorithms.{name}={_options(text)}"
        raise RecipeError(
            f"algorithms.{name} is switched off, and {path} was trained with it; switch it on, by "
            f"{again}, or {_anew(recipe, path)}"
        )


def algorithms(state: dict[str, Any]) -> dict[str, str]:
    """The algorithms of the checkpoint that a recipe can name: name -> repr."""
    saved = saved_algorithms(state)
    return {NAMES[cls]: text for cls, text in saved.items() if cls in NAMES}


def described(path: str | Path, state: dict[str, Any], recipe: Run, weights_only: bool) -> list[str]:
    """Lines that say what is loaded, and in what the recipe differs from that of the checkpoint's run."""
    (time,) = state["timestamp"].values()
    held = language_model(state) or {}
    model = (held.get("class") or "a model").rpartition(".")[2]
    names = ", ".join(algorithms(state)) or "no algorithms"
    what = "the weights alone of" if weights_only else "all of"
    lines = [f"loading {what} {path}: {model} after batch {time['batch']}, with {names}"]
    kept = of_checkpoint(path)
    for line in differences(kept, recipe) if kept is not None else ():
        stays = "; the checkpoint's is used" if line.startswith(LOADED) and not weights_only else ""
        lines.append(f"  another recipe there: {line}{stays}")
    return lines


def _options(text: str) -> str:
    try:
        return json.dumps(parse(text)[1])
    except ValueError:  # the repr of one of Composer's
        return "{}"


def _anew(recipe: Run, path: str | Path) -> str:
    if not isinstance(recipe, ImageRecipe):
        return (
            f"start anew from an exported model: cadenza export {path} FOLDER, then model.pretrained=FOLDER"
        )
    return "start anew without train.load_path"
