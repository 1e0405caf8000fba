"""What prepared rows depend on: a change of a file, of the tokenizer or of an option gives another key."""

import hashlib
import json
import pickle
from importlib.metadata import version
from typing import Any

FORMAT = 1  # raise it when something else is made of the same text: what is kept is then made anew


def key_of(made_of: dict[str, Any]) -> str:
    """16 hexadecimal digits, a hash of `made_of` and of the version of what is kept."""
    return hashlib.sha256(json.dumps([FORMAT, made_of], sort_keys=True).encode()).hexdigest()[:16]


def tokenizer_digest(tokenizer: Any) -> str:
    """A hash of everything that `tokenizer` computes ids by, with the versions of the libraries."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    state = _state(backend) if hasattr(backend, "to_str") else pickle.dumps(tokenizer)
    special = repr([type(tokenizer).__name__, getattr(tokenizer, "all_special_ids", None)])
    libraries = version("tokenizers"), version("transformers")
    return hashlib.sha256(repr((libraries, special)).encode() + state).hexdigest()[:16]


def _state(backend: Any) -> bytes:
    """Without truncation and padding, which each call sets anew."""
    state = json.loads(backend.to_str())
    return json.dumps({**state, "truncation": None, "padding": None}, sort_keys=True).encode()
