"""Rows of two domains: pages are short, most books are long."""

import json

import numpy as np

FIELD = "meta.set"


def rows(count=120, seed=0):
    """Pages of 5 to 20 words; books of 5 to 60, one in five rows."""
    draws = np.random.default_rng(seed)
    found = []
    for number in range(count):
        name = "book" if number % 5 == 0 else "page"
        words = int(draws.integers(5, 61 if name == "book" else 21))
        text = " ".join("w" * (1 + (number + place) % 50) for place in range(words))
        found.append({"text": text, "meta": {"set": name}})
    return found


def written(folder, found, name="a.jsonl"):
    """The path of a file of these rows."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)
