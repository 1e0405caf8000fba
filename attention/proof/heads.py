"""What a model proves whose head is of no tested kind: its outputs are those of tokens, or of documents.

A head by token gets packed rows; one by row gets one document a row, if it is named so
(`cadenza.attention.sequence_heads`). Any other head would make one output of several documents.
"""

from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.anchor import Anchor
from cadenza.attention.document_ids import TakesDocumentIds
from cadenza.attention.modules import base_models
from cadenza.attention.proof.claims import LENGTHS, same
from cadenza.attention.proof.subject import Subject, has_stock_parts, is_tested, proving
from cadenza.attention.sequence_heads import UnpacksDocuments
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class

BY_TOKEN = ("ForMaskedLM", "ForCausalLM", "LMHeadModel", "ForTokenClassification")
TESTED = (
    *("ForPreTraining", "ForQuestionAnswering", "ForSequenceClassification", "ForNextSentencePrediction"),
    *BY_TOKEN,
)
MADE_OF_ROWS = "its head makes {} of a row, whatever documents are in it"


def prove_heads(model: nn.Module) -> None:
    """Check each model with a head in `model` that isn't of a tested family, with a head of a tested kind.

    Raises:
        SurgeryError: packed documents don't get the outputs that each of them gets alone, or with an anchor
            an output isn't by token.
    """
    for host in model.modules():
        if not isinstance(host, TakesDocumentIds | UnpacksDocuments) or _is_tested(host):
            continue
        anchored = isinstance(base_models(host)[0].batch_plan.packing, Anchor)
        if not anchored:
            with proving(host):
                _outputs_follow(host)
        elif isinstance(host, TakesDocumentIds):  # the other one refuses document_ids
            with proving(host):
                _outputs_are_by_token(host)


def _is_tested(host: Any) -> bool:
    """Heads by token in transformers follow in any family whose base model does."""
    name = stock_class(host).__name__
    return name.endswith(TESTED if is_tested(host) else BY_TOKEN) and has_stock_parts(host)


def _outputs_follow(host: Any) -> None:
    subject = Subject(base_models(host)[0])
    rows = [subject.tokens(1, length) for length in LENGTHS]
    alone = [_outputs(host, input_ids=row) for row in rows]
    numbers = torch.arange(1, len(LENGTHS) + 1).repeat_interleave(torch.tensor(LENGTHS))[None]
    packed = _outputs(host, input_ids=torch.cat(rows, dim=1), document_ids=numbers.to(subject.device))
    for name, found in packed.items():
        own = [each[name] for each in alone]
        expected = torch.cat(own, dim=1 if _by_token(own) else 0)
        if found.shape != expected.shape:
            raise SurgeryError(MADE_OF_ROWS.format(name))
        same(found, expected, f"{name} of packed documents aren't what each of them gets alone")


def _outputs_are_by_token(host: Any) -> None:
    """With an anchor a document isn't what it is alone; and no head makes one output of such a document."""
    subject = Subject(base_models(host)[0])
    alone = [_outputs(host, input_ids=subject.tokens(1, length)) for length in LENGTHS]
    for name in alone[0]:
        if not _by_token([each[name] for each in alone]):
            raise SurgeryError(MADE_OF_ROWS.format(name))


def _by_token(alone: list[Tensor]) -> bool:
    """Whether outputs of documents of `LENGTHS` are (1, length, ...)."""
    return all(x.shape[1:2] == (length,) for x, length in zip(alone, LENGTHS, strict=True))


def _outputs(host: Any, **inputs: Tensor) -> dict[str, Tensor]:
    output = host(**inputs, return_dict=True)
    return {name: x for name, x in output.items() if isinstance(x, Tensor) and x.ndim}
