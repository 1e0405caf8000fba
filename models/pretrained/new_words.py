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
        _resize(model, rows)
    for table in tables(model):
        _fill(table, pieces)


def tables(model: Any) -> list[Parameter]:
    """The parameters with a row for each word: embedding, output weights unless tied, and output bias."""
    words, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    own = [] if head is None else [head.weight, getattr(head, "bias", None)]
    return [words, *(table for table in own if table is not None and table is not words)]


def _resize(model: Any, rows: int) -> None:
    """Resize, and keep apart what was: transformers makes one of BERT's two biases, tied or not.

    An untied BERT would be saved with one of them, and loaded with the other at zero.
    """
    before = dict(model.named_parameters(remove_duplicate=False))
    model.resize_token_embeddings(rows, mean_resizing=False)
    kept = {id(table) for table in tables(model)}
    firsts: dict[int, str] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        first = firsts.setdefault(id(parameter), name)
        if id(parameter) in kept and before[first] is not before[name]:
            owner, _, own = first.rpartition(".")  # the output layer, which comes last, keeps its own
            setattr(model.get_submodule(owner), own, Parameter(parameter.detach()[:rows].clone()))


@torch.no_grad()
def _fill(table: Tensor, pieces: dict[int, list[int]]) -> None:
    means = {word: table[ids].mean(dim=0) for word, ids in pieces.items()}
    for word, mean in means.items():
        table[word] = mean


def _words(model: Any) -> int:
    """The words that the model has logits for; rows that pad the vocabulary are none."""
    return getattr(model, "real_vocabulary", len(model.get_input_embeddings().weight))
