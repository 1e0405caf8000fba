"""What a study is given, checked before anything is measured: numbers, models, extras."""

import argparse
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from cadenza.data import DataError
from cadenza.data.errors import one_line
from cadenza.models import ModelError
from cadenza.models.positions import longest
from cadenza.models.saved import build_stock
from cadenza.options import Range
from cadenza.recipe import RecipeError, TrainingError
from cadenza.surgery import SurgeryError
from cadenza.surgery.saving import MODEL_TYPE


class StudyError(ValueError):
    """A study that can't be made as asked; one line."""


class Parser(argparse.ArgumentParser):
    """A command line whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print `message` in one line; of a number: `--examples is 0; it must be at least 1`."""
        self.exit(2, "error: " + re.sub(r"^argument (.+?): (?=is )", r"\1 ", message) + "\n")


def guarded(study: Callable[[], Any]) -> int:
    """Run `study`; an error that the user can correct is one line and exit code 2; a stop is one line."""
    try:
        study()
    except KeyboardInterrupt as error:  # a run, and jobs side by side, say where they stopped
        print(f"stopped: {error}".removesuffix(": "), file=sys.stderr)
        return getattr(error, "code", 130)
    except (StudyError, RecipeError, DataError, ModelError, SurgeryError, TrainingError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def number(valid: Range, *also: int) -> Callable[[str], Any]:
    """A `type` of argparse: the numbers of `valid`, and those in `also`."""

    def parsed(text: str) -> Any:
        try:
            value = int(text) if valid.whole else float(text)
        except ValueError:
            kind = "an integer" if valid.whole else "a number"
            raise argparse.ArgumentTypeError(f"is {text!r}; it must be {kind}") from None
        if value not in also and (must := valid.wrong(value)):
            more = f", or {also[0]}" if also else ""
            raise argparse.ArgumentTypeError(f"is {text}; it must {must}{more}")
        return value

    return parsed


def count(low: int = 1, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A `type` of argparse: whole numbers from `low` to `high`."""
    return number(Range(f"[{low}, {high}]", whole=True))


def plots() -> None:
    """Raise `StudyError` if matplotlib, which draws the results, isn't installed."""
    _need("matplotlib", "plots")


def intervals() -> None:
    """Raise `StudyError` if scipy, which has Student's t, isn't installed."""
    _need("scipy", "intervals")


def _need(package: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise StudyError(f"{what} need {package}: pip install 'cadenza[studies]'")


def _without_weights(config: Any) -> Any:
    """A causal model of `config`; one that techniques changed is built by our own loader."""
    if config.model_type == MODEL_TYPE:
        return build_stock(config.to_dict())
    return AutoModelForCausalLM.from_config(config)


def causal(name: str, length: int) -> Any:
    """The tokenizer of the causal model `name`, a folder or a name on the Hub; no weight is read.

    Raises:
        StudyError: no such model, attention in both directions, or fewer positions than `length`.
    """
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise StudyError(f"model: there is no folder {name}")
    place = str(path) if path.is_dir() else name
    try:
        config, tokenizer = AutoConfig.from_pretrained(place), AutoTokenizer.from_pretrained(place)
        with torch.device("meta"):
            model = _without_weights(config)
    except Exception as error:
        problem = f"model: {name} can't be loaded as a causal model with a tokenizer"
        raise StudyError(f"{problem} ({one_line(error, 300)})") from error
    if {module.is_causal for module in model.modules() if hasattr(module, "is_causal")} == {False}:
        raise StudyError(f"model: {name} attends in both directions; a causal model is needed")
    if (most := longest(model)) is not None and most < length:
        raise StudyError(f"model: {name} has {most} positions; {length} are asked for")
    return tokenizer
