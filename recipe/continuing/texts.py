"""`data.other_eval`: evaluation data of other texts, each built as that of the run's own."""

from collections.abc import Callable
from dataclasses import replace

from composer.core import DataSpec

from cadenza.data import DataError
from cadenza.data.text.config import TextConfig


def other_data(cfg: TextConfig, build: Callable[[TextConfig], DataSpec]) -> dict[str, DataSpec]:
    """Name -> data; `build` makes the evaluation data of a section `data`.

    Raises:
        DataError: a text can't be read; the message names its key.
    """
    found = {}
    for name, source in cfg.other_eval.items():
        try:
            found[name] = build(replace(cfg, source=source, eval_source=source, other_eval={}))
        except DataError as error:
            key = f"data.other_eval.{name}"
            text = str(error).removeprefix("data.eval_source: ").removeprefix("data.source: ")
            raise type(error)(f"{key}: {text}") from error
    return found
