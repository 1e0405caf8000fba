"""Which examples are for evaluation, and which are left out: by a hash of the texts.

So it depends neither on the order of the files nor on the machine, and equal texts are on the same side.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from cadenza.data.labelled.rows import Row


def divided(rows: list[Row], fraction: float, seed: int, classes: bool) -> tuple[list[Row], list[Row]]:
    """The rows to train on and those to evaluate, of each class the share `fraction`.

    A class that has two different texts at least is on either side. A text with several labels is
    trained on.
    """
    evaluated = set(_evaluated(rows, fraction, seed, classes))
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[key_of(row, seed) in evaluated].append(row)
    return sides


def first(rows: list[Row], limit: int | None, seed: int, classes: bool) -> list[Row]:
    """At most `limit` of the rows, in their order: those of the smallest hashes, each class in proportion."""
    if limit is None or limit >= len(rows):
        return rows
    counts, passed = Counter(_class(row, classes) for row in rows), Counter()
    order: list[tuple[float, bytes, int]] = []
    for key, _, index in sorted((key_of(row, seed), row.label, i) for i, row in enumerate(rows)):
        name = _class(rows[index], classes)
        order.append(((passed[name] + 0.5) / counts[name], key, index))
        passed[name] += 1
    return [rows[index] for index in sorted(index for *_, index in sorted(order)[:limit])]


def key_of(row: Row, seed: int) -> bytes:
    """16 bytes: a hash of the texts, another one for each seed."""
    digest = hashlib.blake2b(digest_size=16, key=seed.to_bytes(8, "little"))
    for text in (row.text, row.pair):
        content = b"" if text is None else text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()


def _evaluated(rows: Iterable[Row], fraction: float, seed: int, classes: bool) -> Iterator[bytes]:
    """The keys of the rows to evaluate."""
    labels: dict[bytes, set[str]] = defaultdict(set)
    for row in rows:
        labels[key_of(row, seed)].add(_class(row, classes))
    groups: dict[str, list[bytes]] = defaultdict(list)
    for key, names in labels.items():
        if len(names) == 1:
            groups[min(names)].append(key)
    for keys in groups.values():
        count = min(max(round(fraction * len(keys)), 1), len(keys) - 1)
        yield from sorted(keys)[:count]


def _class(row: Row, classes: bool) -> str:
    """What its share is taken of: its class; of numbers all rows."""
    return str(row.label) if classes else ""
