"""The recipe of a run, kept in its folder as `recipe.yaml`, and how another recipe differs from it."""

import dataclasses
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cadenza.recipe.schema import Run

FILE = "recipe.yaml"
# What changes neither the weights that are trained nor how they are evaluated.
UNCOMPARED = ("name", "loggers", "data.num_workers", "data.local", "tokenizer.cache_dir")
UNCOMPARED += tuple(f"train.{key}" for key in ("run_folder", "load_path", "load_weights_only"))
UNCOMPARED += tuple(f"train.{key}" for key in ("trust_load_path", "autoresume", "progress_bar"))
UNCOMPARED += tuple(
    f"train.{key}" for key in ("save_interval", "keep_checkpoints", "eval_interval", "eval_first")
)
LOADED = ("optimizer.lr", "optimizer.betas", "optimizer.eps", "optimizer.weight_decay", "optimizer.momentum")


def write(recipe: Run) -> Path:
    """Write `recipe`, with all defaults, to its run's folder."""
    path = recipe.folder / FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(recipe))), encoding="utf-8")
    temporary.replace(path)
    return path


def of_checkpoint(path: str | Path) -> dict[str, Any] | None:
    """The recipe of the run that the checkpoint at `path` belongs to; None if it isn't in a run's folder."""
    return read(Path(path).resolve().parent.parent / FILE)


def read(file: Path) -> dict[str, Any] | None:
    """The recipe in `file`; None if there is none."""
    try:
        kept: Any = OmegaConf.to_container(OmegaConf.load(file)) if file.is_file() else None
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return None
    return kept if isinstance(kept, dict) else None


def is_of(checkpoint: str | Path | None, recipe: Run) -> bool:
    """Whether the run of `checkpoint` is the run of `recipe`, and was trained by it."""
    kept = None if checkpoint is None else of_checkpoint(checkpoint)
    return kept is not None and kept.get("name") == recipe.name and not differences(kept, recipe)


def differences(kept: dict[str, Any], recipe: Run) -> list[str]:
    """Each key whose value isn't that of the `kept` recipe, as `data.max_seq_len: 128, here 256`."""
    return between(kept, dataclasses.asdict(recipe))


def between(kept: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The same for two kept recipes."""
    then, now = compared(kept), compared(other)
    return [
        f"{name}: {_shown(then, name)}, here {_shown(now, name)}"
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    ]


def compared(kept: dict[str, Any]) -> dict[str, Any]:
    """The values of a kept recipe that two are compared by, by their dotted keys."""
    return {name: value for name, value in _flat(kept).items() if not _uncompared(name)}


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The values by their dotted keys; an empty mapping, such as a technique without options, is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{path}{key}.")
        elif value != {} or path == "algorithms.":
            found[f"{path}{key}"] = value
    return found


def _uncompared(name: str) -> bool:
    return any(name == key or name.startswith(f"{key}.") for key in UNCOMPARED)


def _shown(values: dict[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    return "on" if values[name] == {} else str(values[name])
