"""The Hugging Face Hub: asked once whether it answers, so that runs without a network fail in seconds."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from cadenza.data.errors import DataError, one_line


@cache
def reachable(timeout: float = 5.0) -> bool:
    """Whether the Hub answers within `timeout` seconds; proxies from the environment are used."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(endpoint, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True  # an error of the server is an answer
    except OSError:
        return False
    return True


@contextmanager
def reading(name: str, advice: str) -> Iterator[None]:
    """Turn any error while data set `name` is read into a `DataError`, which ends with `advice`."""
    problem = f"data.source: data set {name!r} can't be"
    if not reachable():
        raise DataError(f"{problem} reached: the Hub doesn't answer; {advice}")
    try:
        yield
    except Exception as error:
        raise DataError(f"{problem} read ({one_line(error)}); {advice}") from error
