"""The loss of a model by the position of the token in its document."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

PARTS = 16  # of a document, of the same number of tokens


@torch.inference_mode()
def losses(model: Any, documents: Sequence[Sequence[int]]) -> list[float]:
    """The mean loss, in nats, in each of `PARTS` parts of documents that stand alone.

    Args:
        documents: the ids of each, as many in all; the first one is the anchor, which isn't scored.
    """
    total = torch.zeros(PARTS, dtype=torch.float64)
    for ids in documents:
        row = torch.tensor([ids], device=model.device)
        found = F.cross_entropy(model(row).logits[0, :-1].float(), row[0, 1:], reduction="none")
        total += torch.stack([part.double().mean().cpu() for part in found.tensor_split(PARTS)])
    return (total / len(documents)).tolist()


def cut(texts: Sequence[str], tokenizer: Any, anchor: int, length: int, most: int) -> list[list[int]]:
    """The first `length` ids, the anchor included, of the first `most` texts that have so many."""
    found = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) >= length - 1:
            found.append([anchor, *ids[: length - 1]])
        if len(found) == most:
            break
    return found
