"""The places that a recipe names: `~` is expanded, and folders are written to before anything is trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cadenza.data.places import cache_folder, home, is_full, why_unwritable
from cadenza.data.text.vocabulary import TRAINERS
from cadenza.recipe.errors import RecipeError, TrainingError
from cadenza.recipe.schema import ClassificationRecipe, Recipe, Run

# Section -> keys that may hold a path; of those that may hold a name as well, only `~` tells a path.
PATHS = {
    "train": ("run_folder", "load_path"),
    "data": ("source", "eval_source", "other_eval", "mixture", "remote", "local", "root", "cache_dir"),
    "tokenizer": ("name", "cache_dir", "new_tokens"),
    "model": ("pretrained",),
}


def expand(recipe: Run) -> None:
    """Replace `~` by the home folder in each path of `recipe`, also in the options of loggers."""
    for section, keys in PATHS.items():
        holder = getattr(recipe, section, None)
        for key in keys:
            if (value := getattr(holder, key, None)) is not None:
                setattr(holder, key, expanded(value))
    for options in recipe.loggers.values():
        for key, value in (options or {}).items() if isinstance(options, dict) else ():
            options[key] = expanded(value)


def expanded(value: object) -> object:
    """`value` with `~` replaced by the home folder if it is a text that begins so, or holds such."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    if isinstance(value, dict):
        return {key: expanded(item) for key, item in value.items()}
    return str(home(value)) if isinstance(value, str) and value.startswith("~") else value


def prepare(recipe: Run) -> None:
    """Make the folders that a run of `recipe` writes to, and write to each.

    Raises:
        RecipeError: a folder can't be made or written to; the message names the key.
    """
    folders = {"train.run_folder": recipe.folder}
    if recipe.train.save_interval is not None:
        folders["train.run_folder (checkpoints)"] = recipe.checkpoints
    if isinstance(recipe, Recipe | ClassificationRecipe) and recipe.tokenizer.name in TRAINERS:
        key = "tokenizer.cache_dir" if recipe.tokenizer.cache_dir else "CADENZA_CACHE"
        folders[key] = cache_folder(recipe.tokenizer.cache_dir)
    for key, folder in folders.items():
        if why := why_unwritable(folder):
            raise RecipeError(f"{key}: {folder} can't be written to ({why}); name another folder")


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn any error that came of a full disk into a `TrainingError` that says so."""
    try:
        yield
    except TrainingError:
        raise
    except Exception as error:
        if not is_full(error, folder):
            raise
        name = getattr(error, "filename", None) or folder
        raise TrainingError(
            f"{name} couldn't be written: the disk is full; make room, and start again"
        ) from error
