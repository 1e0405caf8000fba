"""New words of a pretrained language model: each begins as the mean of the pieces that it was split into."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel


def add_words(model: PreTrainedModel, pieces: dict[int, list[int]], rows: int) -> None:
    """Give each new word its rows in the embedding and in the output layer, and its output bias.

    Args:
        model: resized to `rows` words, in place, if it has fewer.
        pieces: id of a new word -> ids of its pieces.
        rows: the words of the extended tokenizer.
    """
    if rows > _words(model):
        model.resize_token_embeddings(rows, mean_resizing=False)
    for table in tables(model):
        _fill(table, pieces)


def tables(model: Any) -> list[Parameter]:
    """The parameters with a row for each word: embedding, output weights unless tied, and output bias."""
    words, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    own = [] if head is None else [head.weight, getattr(head, "bias", None)]
    return [words, *(table for table in own if table is not None and table is not words)]


@torch.no_grad()
def _fill(table: Tensor, pieces: dict[int, list[int]]) -> None:
    means = {word: table[ids].mean(dim=0) for word, ids in pieces.items()}
    for word, mean in means.items():
        table[word] = mean


def _words(model: Any) -> int:
    """The words that the model has logits for; rows that pad the vocabulary are none."""
    return getattr(model, "real_vocabulary", len(model.get_input_embeddings().weight))
