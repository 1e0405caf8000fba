"""vt: a chain of variables, hidden in noise. Asked are all that have a value."""

import random
from itertools import pairwise

from cadenza.studies.ruler.tasks.example import Draw, Example
from cadenza.studies.ruler.tasks.needles import NOISE

HOPS = 4  # assignments of a variable to a variable
SHOWN = 16  # lines of noise in the solved example: about 500 tokens
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def variable_tracking(draw: Draw) -> Example:
    """A solved example with shorter names, then the task, with noise of `size` + 4 lines.

    The solved example has a line for each 64 tokens of the length, at most `SHOWN`.
    """
    shown = max(HOPS + 1, min(SHOWN, draw.length // 64))
    solved = _task(draw.rng, shown, letters=3)
    asked = _task(draw.rng, draw.size + HOPS, letters=5)
    return Example(f"{solved.prompt} {' '.join(solved.expected)}\n\n{asked.prompt}", asked.expected)


def _task(rng: random.Random, lines: int, letters: int) -> Example:
    value, names = str(rng.randint(10_000, 99_999)), _names(rng, letters)
    chain = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in pairwise(names))]
    places = sorted(rng.sample(range(lines), len(chain)), reverse=True)
    text = [NOISE] * lines
    for place, step in zip(places, chain[::-1], strict=True):
        text.insert(place, step)
    context = "\n".join(text)
    return Example(
        f"Memorize and track the chain of variable assignments that is hidden in the following text.\n\n"
        f"{context}\nQuestion: Find all variables that are assigned the value {value} in the text above. "
        f"Answer: By the chain of variable assignments in the text above, {len(names)} variables are "
        f"assigned the value {value}, they are:",
        tuple(names),
    )


def _names(rng: random.Random, letters: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < HOPS + 1:
        names["".join(rng.choices(LETTERS, k=letters))] = None
    return list(names)
