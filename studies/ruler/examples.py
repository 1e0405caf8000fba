"""The examples of a task at a length: the largest ones that fit, in the tokens of a tokenizer."""

import random
from typing import Any

from cadenza.studies.ruler.material import Material
from cadenza.studies.ruler.tasks.example import Draw, Example, Exhausted
from cadenza.studies.ruler.tasks.table import TASKS

ANCHOR = 1  # the token in front of each prompt
STEPS = 256  # a size is exact to its 256th part


class LeftOut(Exception):
    """A task can't be asked at a length; the message says why."""


class Examples:
    """Examples for one tokenizer. Each is made from task, length, seed and number alone, and kept."""

    def __init__(self, tokenizer: Any, material: Material, count: int) -> None:
        self.tokenizer, self.material, self.count = tokenizer, material, count
        self._made: dict[tuple[str, int, int], list[Example]] = {}

    def of(self, task: str, length: int, seed: int) -> list[Example]:
        """The examples of a cell.

        Raises:
            LeftOut: the smallest one is longer than `length`, or the material doesn't fill it.
        """
        key = (task, length, seed)
        if key not in self._made:
            self._made[key] = [self.fitted(task, length, f"{seed} {n}") for n in range(self.count)]
        return self._made[key]

    def fitted(self, task: str, length: int, seed: str) -> Example:
        """The largest example whose anchor, prompt and answer fit in `length` tokens; errors as in `of`."""

        def make(size: int) -> Example:
            rng = random.Random(f"{task} {length} {seed}")
            return TASKS[task].make(Draw(rng, size, length, self.material))

        low, high = 1, 2
        if (smallest := self.tokens(task, make(low))) > length:
            raise LeftOut(f"{task} takes {smallest} tokens at least, and {length} are asked for")
        try:
            while self.tokens(task, make(high)) <= length:
                low, high = high, 2 * high
        except Exhausted:
            high = _last_before(make, low, high) + 1
            if self.tokens(task, make(high - 1)) <= length:
                raise LeftOut(f"{task}: its file has too few paragraphs for {length} tokens") from None
        while high - low > max(1, low // STEPS):
            middle = (low + high) // 2
            low, high = (middle, high) if self.tokens(task, make(middle)) <= length else (low, middle)
        return make(low)

    def tokens(self, task: str, example: Example) -> int:
        """The tokens of an example with its anchor and its answer."""
        return ANCHOR + len(self.ids(example)) + TASKS[task].answer_tokens

    def ids(self, example: Example) -> list[int]:
        """The token ids of the prompt, without special tokens."""
        return self.tokenizer(example.prompt, add_special_tokens=False)["input_ids"]


def _last_before(make: Any, low: int, high: int) -> int:
    """The largest size from `low` on, below `high`, that there is an example of."""
    while high - low > 1:
        middle = (low + high) // 2
        try:
            make(middle)
            low = middle
        except Exhausted:
            high = middle
    return low
