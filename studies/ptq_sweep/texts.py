"""The texts, as windows of token ids."""

from typing import Any

import torch
from torch import Tensor

from cadenza.data.text.config import TextConfig
from cadenza.data.text.finite import Finite
from cadenza.data.text.marks.anchor import anchor_id
from cadenza.studies.checks import StudyError
from cadenza.studies.ptq_sweep.settings import Sweep


def windows(cfg: Sweep, source: str, tokenizer: Any) -> Tensor:
    """Token ids (windows, window) of pieces that are evenly spread over the text; each begins with BOS.

    Without a BOS the tokenizer's EOS takes its place. What lies beyond four times the tokens that are taken
    isn't read.

    Raises:
        StudyError: the text is too short.
    """
    ids, length = [], cfg.window - 1
    for text in Finite(source, TextConfig(), "texts"):
        ids += tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > 4 * cfg.windows * length:
            break
    pieces = torch.tensor(ids[: len(ids) // length * length]).view(-1, length)
    if len(pieces) < cfg.windows:
        found = f"{len(pieces)} windows of {cfg.window} tokens"
        raise StudyError(f"texts: {source} holds {found}, not {cfg.windows}")
    taken = pieces[:: len(pieces) // cfg.windows][: cfg.windows]
    return torch.cat([torch.full((cfg.windows, 1), anchor_id(tokenizer)), taken], 1)
