"""Whether the model hub answers: asked once, so that its absence is told in seconds, not after retries."""

import os
import urllib.error
import urllib.request
from functools import cache


@cache
def reachable(timeout: float = 5.0) -> bool:
    """Whether the Hugging Face Hub answers at all; proxies from the environment are honoured."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(endpoint, timeout=timeout).close()
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False
    return True
