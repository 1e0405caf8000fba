"""The texts that D is measured on: pieces of a source, one after another."""

from typing import Any

import torch
from torch import Tensor

from cadenza.data.text.config import TextConfig
from cadenza.data.text.finite import Finite
from cadenza.studies.checks import StudyError


def texts(source: str, tokenizer: Any, tokens: int, count: int) -> Tensor:
    """`count` pieces (count, tokens) of `source`; each begins as the tokenizer begins a text.

    Raises:
        StudyError: the source is too short.
        DataError: it can't be read.
    """
    start = _start(tokenizer)
    own = tokens - len(start)
    ids: list[int] = []
    for document in Finite(source, TextConfig(), "--text"):
        ids += tokenizer(str(document), add_special_tokens=False)["input_ids"]
        if own > 0 and len(ids) >= count * own:
            return torch.tensor([start + ids[n * own : (n + 1) * own] for n in range(count)])
    whole = len(ids) // own if own > 0 else 0
    raise StudyError(f"--text: {source} holds {whole} texts of {tokens} tokens; --texts asks for {count}")


def _start(tokenizer: Any) -> list[int]:
    """BOS, if the tokenizer begins a text with it."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []
