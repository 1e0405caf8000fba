"""`data.other_eval`: evaluation data of other texts, each built as that of the run's own."""

import os
from collections.abc import Callable
from pathlib import Path

from composer.core import DataSpec

from cadenza.data import DataError
from cadenza.data.text.config import TextConfig
from cadenza.data.text.files.paths import is_local, paths_of


def other_data(cfg: TextConfig, build: Callable[[TextConfig], DataSpec]) -> dict[str, DataSpec]:
    """Name -> data; `build` makes the evaluation data of a section `data`.

    Raises:
        DataError: a text can't be read, or is trained on; the message names its key.
    """
    found = {}
    for name, source in cfg.other_eval.items():
        _refuse_trained(name, source, cfg)
        try:
            found[name] = build(cfg.judging(source))
        except DataError as error:
            key = f"data.other_eval.{name}"
            text = str(error).removeprefix("data.eval_source: ").removeprefix("data.source: ")
            raise type(error)(f"{key}: {text}") from error
    return found


def _refuse_trained(name: str, source: str | list[str], cfg: TextConfig) -> None:
    trained = _places(source) & _places(cfg.names)
    if trained:
        found = Path(min(trained)).name
        raise DataError(
            f"data.other_eval.{name}: {found} is in data.source, which is trained on; name another text"
        )


def _places(source: str | list[str]) -> set[str]:
    """Files by their real paths; other sources by their names. What can't be read is told of later."""
    found: set[str] = set()
    for name in [source] if isinstance(source, str) else source:
        try:
            paths = paths_of(name, "") if is_local(name) else [name]
        except DataError:
            paths = [name]
        found.update(map(os.path.realpath, paths))
    return found
