"""key_value: the value of one key of a table, like HELMET's `json_kv`. It isn't one of RULER's tasks."""

from cadenza.studies.ruler.tasks.example import Draw, Example
from cadenza.studies.ruler.tasks.needles import number


def key_value(draw: Draw) -> Example:
    """The value of one key among `size` pairs."""
    table = {word: number(draw.rng) for word in draw.material.words(draw.rng, draw.size)}
    key = draw.rng.choice(list(table))
    lines = "\n".join(f"{word}: {value}" for word, value in table.items())
    text = f"Each line holds a key and its value.\n{lines}\nThe value of {key} is: {key}:"
    return Example(text, (table[key],))
