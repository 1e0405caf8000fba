"""The documents of a stream behind those that were read before a resume."""

from collections.abc import Iterable, Iterator
from itertools import islice

from composer.utils import dist
from torch.utils.data import get_worker_info
from tqdm.auto import tqdm

from cadenza.data.errors import DataError
from cadenza.data.text.encoding import Document


def behind(documents: Iterable[Document], count: int) -> Iterator[Document]:
    """`documents` without the first `count`, which are read and not tokenized, with a progress bar.

    Raises:
        DataError: there are fewer.
    """
    remaining = iter(documents)
    if count:
        options = {"total": count, "unit": "doc", "mininterval": 0.5, "disable": not _first_process()}
        earlier = tqdm(islice(remaining, count), "passing by earlier documents, not tokenized", **options)
        if (passed := sum(1 for _ in earlier)) < count:
            right = "resume with the same data, or load the weights alone (train.load_weights_only=true)"
            raise DataError(
                f"data.source: {count:,} documents were read before the checkpoint, "
                f"there are {passed:,}; {right}"
            )
    yield from remaining


def _first_process() -> bool:
    worker = get_worker_info()
    return dist.get_global_rank() == 0 and (worker is None or worker.id == 0)
