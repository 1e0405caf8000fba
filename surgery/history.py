"""Which surgeries a model has behind it, as plain values that a file can hold."""

import ast
from typing import Any

from torch import nn

from cadenza.surgery.ledger import Entry, ledger


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Class name and options of the repr of a surgery, e.g. `GLU(variant='geglu')`.

    Raises:
        ValueError: it's no call with plain values.
    """
    try:
        call: Any = ast.parse(text, mode="eval").body
        return call.func.id, {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, AttributeError, ValueError) as error:
        raise ValueError(f"{text!r} is not a surgery with plain options") from error


def history(model: nn.Module) -> list[Entry]:
    """The surgeries done on `model`, each once, in an order in which they can be done again.

    By stage, and by name within a stage: there they commute.
    """
    found = {entry for module in model.modules() for entry in ledger(module).values()}
    return sorted(found, key=lambda entry: (entry.stage, entry.surgery))
