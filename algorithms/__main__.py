"""Print the table of techniques in the README, as Markdown."""

import inspect
import re

from cadenza import algorithms


def table() -> str:
    """A row for each technique: name in a recipe, functional form, what it does, what it works on."""
    head = ["| in a recipe | functional form | what it does | works on |", "|---|---|---|---|"]
    return "\n".join([*head, *(row(name) for name in algorithms.REGISTRY)])


def row(name: str) -> str:
    """One row: the first sentence of the docstring, and the sentence that begins with "Works on"."""
    cls = algorithms.REGISTRY[name]
    text = " ".join((inspect.getdoc(cls) or "").split()).replace("|", "\\|")
    does, works = (re.search(rf"{start}(.*?)\.(?= |$)", text) for start in ("^", "Works on "))
    if does is None or works is None:
        raise ValueError(f"{cls.__name__}: its docstring must say what it does, and what it works on")
    form = f"`apply_{name}`" if hasattr(algorithms, f"apply_{name}") else f"(`{cls.__name__}`)"
    return f"| `{name}` | {form} | {does[1]} | {works[1]} |"


if __name__ == "__main__":
    print(table())
