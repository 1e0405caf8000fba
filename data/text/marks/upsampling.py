"""Length upsampling within each domain: long documents come more often, and each domain keeps its share.

Fu et al., "Data Engineering for Scaling Language Models to 128K Context" (arXiv 2402.10171): to upsample long
documents of all domains alike would shift the mixture of domains, since most long documents are books.

`upsampled` is for a finite source: no document is left out, and a domain with fewer long documents is
repeated. `Shares` is for a stream: a domain that is ahead of its share passes documents by.
"""

import numpy as np

from cadenza.data.errors import DataError

MOST_DOMAINS = 1000  # whose shares a stream keeps: each place in it holds a number for each


def upsampled(
    order: np.ndarray, lengths: np.ndarray, times: np.ndarray, domains: np.ndarray | None, seed: int
) -> np.ndarray:
    """The rows of a pass: each as often as `times` says, and its domain as often as keeps its share.

    The tokens of a domain are within half of its longest document of that share.

    Args:
        order: (rows,) the rows, shuffled.
        lengths, times: (rows,) the tokens of each row, and how often it comes beside others of its domain.
        domains: (rows,) the number of each row's domain; None: all rows are of one.
        seed: of the order of the pass.
    """
    if domains is None or bool((times == 1).all()):
        return np.repeat(order, times[order])
    _, numbers = np.unique(domains, return_inverse=True)
    plain, longer = (np.bincount(numbers, weights=lengths * each) for each in (1, times))
    targets = plain * (longer / plain).max()
    within = (order[numbers[order] == number] for number in range(len(targets)))
    filled = [_filled(rows, lengths, times, target) for rows, target in zip(within, targets, strict=True)]
    return np.random.default_rng([seed, 1]).permutation(np.concatenate(filled))


def _filled(rows: np.ndarray, lengths: np.ndarray, times: np.ndarray, target: float) -> np.ndarray:
    """`rows`, each as often as `times` says, again and again up to `target` tokens."""
    once = np.repeat(rows, times[rows])
    sizes = lengths[once]
    passes, rest = divmod(target, int(sizes.sum()))
    more = int(np.searchsorted(sizes.cumsum() - sizes / 2, rest))
    return np.concatenate([*[once] * int(passes), once[:more]])


class Shares:
    """Keeps each domain's share of a stream.

    `ahead` holds how many more tokens of each domain were given than were read. A document is passed by while
    its domain is ahead, whatever its length, so that long and short ones are passed by equally often. No
    domain is ever further ahead than the repetitions of one document, nor further behind than one document.

    Args:
        ahead: of each domain, where the stream goes on.
    """

    def __init__(self, ahead: dict[str, int]) -> None:
        self.ahead = ahead

    def times(self, domain: str, tokens: int, asked: int) -> int:
        """How often a document of so many `tokens` comes that should come `asked` times."""
        before = self.ahead.get(domain, 0)
        times = 0 if before > 0 else asked
        self.ahead = {**self.ahead, domain: before + (times - 1) * tokens}
        if len(self.ahead) > MOST_DOMAINS:
            right = "name a field with fewer values, or leave data.upsample_from out"
            raise DataError(f"data.domain_field has more than {MOST_DOMAINS:,} values; {right}")
        return times
