"""Heads that make one output of a row: for them a packed batch is unpacked, to one document a row.

Such a head reads the first token, the last one, or a mean, of each row. Its own stock code does so on
(documents, longest). The base model computes on real tokens only, so packing saves what it saves elsewhere.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cadenza.attention.anchor import Anchor
from cadenza.attention.batch_call import TOKENWISE, check_ids, tokens_of
from cadenza.attention.documents import Documents, from_ids
from cadenza.attention.modules import base_models, is_causal_model
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage, bound, stock_class
from cadenza.surgery.runtime import uncompiled

NAME = "ForSequenceClassification"  # how transformers calls a model with such a head
MASK = "attention_mask"


def reads_rows(host: Any) -> bool:
    """Whether `host` is named as a model whose head makes one output of a row."""
    return any(cls.__name__.endswith(NAME) for cls in stock_class(host).__mro__)


class UnpacksDocuments(Mixin, of="sequence_packing or anchor_attention", stage=Stage.ATTENTION):
    """A model whose head makes one output of a row; with `document_ids` it makes one of each document.

    Outputs are (documents, ...) in the order of the batch, and so are `labels`.
    """

    def forward(self, *args: Any, document_ids: Tensor | None = None, **kwargs: Any) -> Any:
        if document_ids is None:
            return super().forward(*args, **kwargs)
        return super().forward(**unpacked(self, args, kwargs, document_ids))


@uncompiled  # sizes depend on values
def unpacked(host: Any, args: tuple, kwargs: dict[str, Any], document_ids: Tensor) -> dict[str, Any]:
    """The arguments of a call of `host`, with one document a row in place of several.

    Raises:
        SurgeryError: an argument doesn't fit `document_ids`, or the head can't be called by document.
    """
    named, others = bound(host, args, kwargs)
    given = {name: value for name, value in (named | others).items() if value is not None}
    _check(host, given, document_ids)
    tokens = {name: given[name] for name in TOKENWISE if name in given}
    documents = from_ids(document_ids, tokens_of(given).device)
    if "labels" in given and len(given["labels"]) != len(documents.lengths):
        raise SurgeryError(f"labels are {len(given['labels'])}, for {len(documents.lengths)} documents")
    mask = document_a_row(torch.ones_like(document_ids, device=documents.device), documents)
    for name, value in tokens.items():
        given[name] = document_a_row(value.expand(*document_ids.shape, *value.shape[2:]), documents)
    if "input_ids" in given:
        given["input_ids"] = given["input_ids"].masked_fill(mask == 0, _padding(host))
    return {**given, MASK: mask, "unpacked": True}


def document_a_row(tokens: Tensor, documents: Documents) -> Tensor:
    """(rows, length, ...) -> (documents, longest, ...), with zeros behind each document."""
    count, longest = len(documents.lengths), documents.longest
    places = documents.of_token.long() * longest + documents.positions
    apart = replace(documents, indices=places, _kept={})
    return apart.scatter(documents.gather(tokens), count, longest)


def _check(host: Any, given: Mapping[str, Any], document_ids: Tensor) -> None:
    name, base = stock_class(host).__name__, base_models(host)[0]
    if isinstance(base.batch_plan.packing, Anchor):
        raise SurgeryError(f"{name} makes one output of a row, which anchor_attention doesn't divide")
    if "inputs_embeds" in given and is_causal_model(base):
        raise SurgeryError(f"document_ids: {name} finds the last token by input_ids; pass them")
    check_ids(document_ids, tokens_of(given), given.get(MASK))
    known = {*TOKENWISE, MASK, "labels"}
    for key, value in given.items():
        by_token = isinstance(value, Tensor) and value.shape[:2] == document_ids.shape
        if by_token and key not in known:
            raise SurgeryError(f"document_ids: {key} isn't known to be a value of each token; leave it out")


def _padding(host: Any) -> int:
    """The id that the head takes for padding; the base model computes on real tokens only."""
    found = host.config.get_text_config().pad_token_id
    return found if isinstance(found, int) else 0
