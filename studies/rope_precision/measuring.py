"""D in cells of text, mode and shift; each is measured once and written at once."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor
from tqdm.auto import tqdm

from cadenza.studies import report
from cadenza.studies.glue.weights import digest
from cadenza.studies.rope_precision.discrepancy import Discrepancy, discrepancies
from cadenza.studies.rope_precision.loading import MODES, load
from cadenza.studies.running import cells

KEYS = ("mode", "text", "shift", "settings")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        folder: of the model.
        ids: (texts, tokens).
        against: the first position that shifts are compared with.
        at_once: mode -> the number of shifts in a batch.
    """

    folder: str
    ids: Tensor
    against: int
    shifts: tuple[int, ...]
    at_once: dict[str, int]
    device: str

    def cells(self) -> list[tuple[str, ...]]:
        """The values of `KEYS` of each cell: its settings are a hash of what it depends on beside them."""
        weights = digest(self.folder)
        made_of = [json.dumps([weights, ids, self.against]) for ids in self.ids.tolist()]
        settings = [hashlib.sha256(each.encode()).hexdigest()[:12] for each in made_of]
        texts = [(mode, str(text), own) for mode in self.at_once for text, own in enumerate(settings)]
        return [(mode, text, str(shift), own) for mode, text, own in texts for shift in self.shifts]


def run(plan: Plan, path: Path) -> list[report.Row]:
    """Measure the cells that `path` lacks; returns all cells of the plan as they stand there."""
    every, done = plan.cells(), {_key(row) for row in cells.done(path)}
    todo = [cell for cell in every if cell not in done]
    with tqdm(total=len(every), initial=len(every) - len(todo), unit="shift") as bar:
        for mode in dict.fromkeys(cell[0] for cell in todo):
            bar.set_postfix_str(mode)
            for row in _of_mode(plan, mode, [cell for cell in todo if cell[0] == mode]):
                cells.append(path, row)
                bar.update()
    wanted = set(every)
    return [row for row in cells.done(path) if _key(row) in wanted]


def _key(row: report.Row) -> tuple[str, ...]:
    return tuple(row[key] for key in KEYS)


def _of_mode(plan: Plan, mode: str, todo: list[tuple[str, ...]]) -> Iterator[report.Row]:
    """The rows of the cells `todo` of a mode, which is loaded once."""
    model, at_once = load(plan.folder, MODES[mode], plan.device), plan.at_once[mode]
    for text, settings in dict.fromkeys((cell[1], cell[3]) for cell in todo):
        shifts = [int(cell[2]) for cell in todo if cell[1] == text]
        for start in range(0, len(shifts), at_once):
            some = shifts[start : start + at_once]
            found = discrepancies(model, plan.ids[int(text)], plan.against, some)
            for shift, each in zip(some, found, strict=True):
                key = dict(zip(KEYS, (mode, text, shift, settings), strict=True))
                yield {**key, "against": plan.against, **columns(each)}


def columns(found: Discrepancy) -> report.Row:
    """The columns of a cell: D, its parts by places of keys, and the scores of the first key by length."""
    row: report.Row = {}
    for reading in ("inside", "outside"):
        values = getattr(found, reading)
        row[f"D, {reading}"] = float(values.sum())
        places = spans(len(values))
        row |= {f"{reading} {name(*span)}": float(values[slice(*span)].sum()) for span in places}
    lengths = sorted({2**n for n in range(len(found.scores).bit_length())} | {len(found.scores)})
    return row | {f"scores {length}": float(found.scores[length - 1]) for length in lengths}


def spans(tokens: int) -> list[tuple[int, int]]:
    """The places of keys that are reported together: 0, 1, 2-3, 4-7 and so on."""
    ends = [0, *(2**n for n in range(tokens.bit_length()) if 2**n < tokens), tokens]
    return list(pairwise(ends))


def name(first: int, stop: int) -> str:
    """The name of a span."""
    return str(first) if stop == first + 1 else f"{first}-{stop - 1}"
