"""The rules: which keys of a recipe a record may not change.

The comparison is of resolved recipes, with all defaults, so it doesn't matter by which file or overlay a key
is set.
"""

from dataclasses import asdict
from typing import Any

from tracks import Track

from cadenza.recipe.schema import Recipe
from cadenza.studies.checks import StudyError

# Of `data` and `tokenizer`: these change what is trained on which text when, or nothing at all.
FREE = (
    *("data.mlm_probability", "data.masking", "data.mask_replace_prob", "data.random_replace_prob"),
    *("data.max_seq_len", "data.num_workers", "data.cache_dir", "tokenizer.cache_dir"),
)
FROM_SCRATCH = (
    *("model.objective", "model.pretrained"),
    *("train.load_path", "train.load_weights_only", "train.autoresume"),
)


def refuse(where: str, recipe: Recipe, track: Track) -> None:
    """Raise `StudyError` if `recipe`, called `where`, changes what all records of `track` share."""
    if not isinstance(recipe, Recipe):
        raise StudyError(f"{where}: model.objective is {recipe.model.objective}; it must be masked_lm")
    ours, theirs = fixed(recipe), fixed(track.recipe)
    for key, value in ours.items():
        if value != theirs[key]:
            problem = f"{key} is {value!r}; it must be {theirs[key]!r}"
            raise StudyError(f"{where}: {problem}: records share text, vocabulary, evaluation and start")
    if recipe.train.precision == "auto":
        right = "name fp32 or amp_bf16: what auto means is measured anew in each run"
        raise StudyError(f"{where}: train.precision is 'auto'; {right}")


def fixed(recipe: Recipe) -> dict[str, Any]:
    """The values that all records have in common, by their dotted keys."""
    values = {
        f"{section}.{key}": value
        for section in ("data", "tokenizer", "model", "train")
        for key, value in asdict(getattr(recipe, section)).items()
    }
    judged = {key: value for key, value in values.items() if key.startswith(("data.", "tokenizer."))}
    return {key: value for key, value in judged.items() if key not in FREE} | {
        key: values[key] for key in FROM_SCRATCH
    }
