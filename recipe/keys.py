"""The table of all keys of a recipe, as Markdown: python -m cadenza.recipe.keys > docs/recipe_keys.md"""

import dataclasses
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

from cadenza.algorithms import REGISTRY
from cadenza.data.images.config import ImageConfig
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.text.config import TextConfig
from cadenza.data.text.tokenizer_config import TokenizerConfig
from cadenza.options import declared
from cadenza.recipe.loading.sections import type_names
from cadenza.recipe.methods import COMPOSERS, options_of
from cadenza.recipe.methods.values import RANGES
from cadenza.recipe.schema import ClassifierModel, ImageModel, Model, Optimizer, Run, Scheduler, Train

HEAD = """\
# Keys of a recipe

Each key has a type, a default, the values that fit, and a meaning. In a range `[` and `]` include the end,
`(` and `)` do not. All numbers must be finite. `python -m cadenza.recipe.keys` prints this page.
"""

# Title and dataclass of each section; `key` is what stands before the name of a field.
SECTIONS: list[tuple[str, str, Any]] = [
    ("recipe", "", Run),
    ("model", "model.", Model),
    ("model, labelled text", "model.", ClassifierModel),
    ("model, images", "model.", ImageModel),
    ("tokenizer", "tokenizer.", TokenizerConfig),
    ("data", "data.", TextConfig),
    ("data, labelled text", "data.", LabelledConfig),
    ("data, images", "data.", ImageConfig),
    ("optimizer", "optimizer.", Optimizer),
    ("scheduler", "scheduler.", Scheduler),
    ("train", "train.", Train),
]


def page() -> str:
    """The page: the sections of a recipe, the techniques, and Composer's own algorithms."""
    techniques = [(f"algorithms.{name}", f"algorithms.{name}.", cls) for name, cls in REGISTRY.items()]
    ours = (section(*each) for each in (*SECTIONS, *techniques))
    return "\n".join([HEAD, *ours, *(_of_composer(name, cls) for name, cls in COMPOSERS.items())])


def section(title: str, key: str, cls: Any) -> str:
    """A heading, the first sentence of the class's docstring, and a row for each field."""
    first = " ".join((inspect.getdoc(cls) or "").split()).partition(". ")[0].rstrip(".")
    return _section(title, first, _rows(key, cls))


def _of_composer(name: str, cls: Any) -> str:
    """The section of an algorithm of Composer's, with the ranges that Cadenza checks."""
    options = options_of(name, cls)
    ranges = RANGES.get(name, {})
    hints = get_type_hints(options)
    rows = (
        _row(f"algorithms.{name}.{f.name}", hints[f.name], _default(f), ranges.get(f.name, ""), "")
        for f in dataclasses.fields(options)
    )
    first = f"Composer's `{cls.__name__}`, whose documentation says what the options mean"
    if cls.__module__.startswith("cadenza."):
        here = (inspect.getdoc(cls) or "").partition("\n\n")[2]
        first = f"{first}. {' '.join(here.split()).rstrip('.')}"
    return _section(f"algorithms.{name}", first, rows)


def _section(title: str, first: str, rows: Iterable[str]) -> str:
    head = ["| key | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([f"## {title}\n", f"{first}.\n", *head, *rows, ""])


def _rows(key: str, cls: Any) -> Iterator[str]:
    hints = get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if not dataclasses.is_dataclass(hints[field.name])]
    fields.sort(key=lambda field: field.name in ("strict", "prove"))  # every technique has them
    for field in fields:
        option, name = declared(field), f"{key}{field.name.rstrip('_')}"
        meaning = option.meaning + _only(option.only)
        yield _row(name, hints[field.name], _default(field), str(option.valid or ""), meaning)


def _row(name: str, hint: Any, *cells: str) -> str:
    whole = (f"`{name}`", type_names(hint), *cells)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in whole) + " |"


def _default(field: dataclasses.Field) -> str:
    factory: Any = field.default_factory
    value = field.default if factory is dataclasses.MISSING else factory()
    if value is dataclasses.MISSING:
        return "required"
    words = {None: "null", True: "true", False: "false"}
    return f"`{words.get(value, value) if isinstance(value, bool | None) else value}`"


def _only(only: tuple[str, tuple[str, ...]] | None) -> str:
    return "" if only is None else f" Only with `{only[0]}` {' or '.join(only[1])}."


if __name__ == "__main__":
    print(page(), end="")
