"""The base model's side of the seam: it tells its layers where documents lie, and drops padding."""

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from cadenza.surgery.anchor import Anchor
from cadenza.surgery.documents import PADDING, Documents, from_ids, from_mask
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import bound, stock_class
from cadenza.surgery.rope import Rotation, refuse_static

TOKENWISE = ("input_ids", "inputs_embeds", "token_type_ids", "position_ids")
CACHES = ("past_key_values", "cache")  # the second from transformers 5.24 on, which still takes the first
ELSEWHERE = (*CACHES, "encoder_hidden_states", "encoder_attention_mask")


NO_IDS = "anchor_attention: this training batch has no document_ids, so each row is one document"


class ReadsDocuments:
    """A base model on the seam.

    `document_ids` (batch, length), 1, 2, ... for documents and -1 for padding, keeps packed documents
    apart; 0 is an anchor: see `cadenza.surgery.anchor`. `labelled` (rows,), places in the flattened batch,
    makes the last hidden state (1, rows, hidden).
    Without either, and with no claim on kernel or layout, the stock `forward` runs as it is.
    """

    def forward(
        self, *args: Any, document_ids: Tensor | None = None, labelled: Tensor | None = None, **kwargs: Any
    ) -> Any:
        plan = self.attention_plan
        if isinstance(plan.packing, Anchor) and self.training and document_ids is None:
            warnings.warn(NO_IDS, stacklevel=2)
        described = plan.kernel is not None or plan.layout is not None or document_ids is not None
        if not described and labelled is None:
            if plan.rope is not None:
                kwargs["rope"] = rotation(self, args, kwargs)
            return super().forward(*args, **kwargs)
        call = Call(self, args, kwargs, labelled)
        if described:
            call.describe(document_ids)
        if plan.layout is not None:
            call.unpad()
        if plan.rope is not None:
            call.rotate(plan.rope.per_document)
        if plan.rows == "last_layer":
            call.others["labelled"] = call.labelled
        return call.finish(super().forward(**call.named, **call.others))


class Call:
    """One call of a base model, on its way in and out."""

    def __init__(self, model: Any, args: tuple, kwargs: dict[str, Any], labelled: Tensor | None) -> None:
        self.model, self.plan, self.labelled = model, model.attention_plan, labelled
        self.named, self.others = bound(model, args, kwargs)
        self.unpadded: Documents | None = None
        self._refuse()
        wants_dict = self.others.pop("return_dict", None)
        self.wants_dict = model.config.return_dict if wants_dict is None else wants_dict
        self.others["return_dict"] = True
        tokens = self.tokens
        self.batch, self.length, self.device = *tokens.shape[:2], tokens.device

    @property
    def tokens(self) -> Tensor:
        """`input_ids`, or `inputs_embeds` where there are none."""
        given = [self.named[name] for name in TOKENWISE[:2] if self.named.get(name) is not None]
        if len(given) != 1:
            raise SurgeryError("pass exactly one of input_ids and inputs_embeds")
        return given[0]

    def describe(self, document_ids: Tensor | None) -> None:
        """Give the layers the documents in place of a mask."""
        mask = self.named.get("attention_mask")
        if document_ids is None:
            documents = from_mask(mask, self.batch, self.length, self.device)
        else:
            self._refuse_ids(document_ids, mask)
            read = self.anchor.documents if self.anchor else from_ids
            documents = read(document_ids, self.device)
        self.named["position_ids"] = self._positions(documents, packed=document_ids is not None)
        # Transformers hands a 4D mask on as it is. This one fits nothing: a layer that loses the documents on
        # the way fails, where no mask would let it see across them.
        self.named["attention_mask"] = torch.ones(1, 1, 0, 0, dtype=torch.bool, device=self.device)
        self.others["documents"] = documents

    @property
    def anchor(self) -> Anchor | None:
        """How `document_ids` are read where an anchor may be among them."""
        return self.plan.packing if isinstance(self.plan.packing, Anchor) else None

    def unpad(self) -> None:
        """Gather the documents' tokens to one row."""
        documents: Documents = self.others["documents"]
        for name in TOKENWISE:
            if self.named.get(name) is not None:
                self.named[name] = documents.gather(self.named[name])
        if self.labelled is not None and documents.indices is not None:
            self.labelled = self._moved(documents.indices, self.labelled)
        self.unpadded, self.others["documents"] = documents, documents.alone()

    def rotate(self, per_document: bool) -> None:
        """Give the layers the positions that they rotate by."""
        documents = self.others.get("documents")
        positions = self.named.get("position_ids")
        if per_document and documents is not None and documents.anchors:
            self._refuse_per_document()
        elif per_document and documents is not None:
            positions = documents.scatter(documents.positions[None], *self.tokens.shape[:2])
        if positions is None:
            positions = torch.arange(self.length, device=self.device)[None]
        self.others["rope"] = Rotation(positions)

    def finish(self, output: ModelOutput) -> Any:
        """Select the labelled rows, or put the tokens back into their places."""
        if self.labelled is not None and self.plan.rows == "output":
            hidden = output["last_hidden_state"].flatten(0, 1)
            output["last_hidden_state"] = hidden.index_select(0, self.labelled)[None]
        if self.unpadded is not None:
            self._pad(self.unpadded, output)
        return output if self.wants_dict else output.to_tuple()

    def _pad(self, documents: Documents, output: ModelOutput) -> None:
        def back(tokens: Any) -> Any:
            if isinstance(tokens, tuple):
                return tuple(back(each) for each in tokens)
            return documents.scatter(tokens, self.batch, self.length)

        for name in ("hidden_states", *(() if self.labelled is not None else ("last_hidden_state",))):
            if output.get(name) is not None:
                output[name] = back(output[name])
        if output.get("pooler_output") is not None:  # computed from the first token of all
            output["pooler_output"] = pooled(self.model, output["last_hidden_state"])

    def _positions(self, documents: Documents, packed: bool) -> Tensor:
        """(batch, length), those that the stock model would use; within each document if `packed`."""
        shape = (self.batch, self.length)
        given, ids = self.named.get("position_ids"), self.named.get("input_ids")
        if given is not None:
            return given.expand(shape)
        padding = _roberta_padding(self.model)
        first = 0 if padding is None else padding + 1
        if packed and self.anchor:
            places = self.anchor.positions(documents)
            running = torch.arange(self.length, device=self.device).expand(shape)
            return running if places is None else documents.scatter(places[None], *shape)
        if packed:
            return documents.scatter(documents.positions[None] + first, *shape)
        if padding is not None and ids is not None:  # RoBERTa counts the tokens that aren't padding
            real = ids != padding
            return real.cumsum(1) * real + padding
        return torch.arange(first, first + self.length, device=self.device).expand(shape)

    def _moved(self, indices: Tensor, labelled: Tensor) -> Tensor:
        """Places in the flattened batch as places among the gathered tokens."""
        places = torch.full((self.batch * self.length,), -1, device=self.device)
        places[indices] = torch.arange(len(indices), device=self.device)
        moved = places[labelled]
        if bool((moved < 0).any()):
            raise SurgeryError("labels mark padding tokens; set them to -100 where attention_mask is 0")
        return moved

    def _refuse_per_document(self) -> None:
        if not (self.anchor and self.anchor.reset_positions):
            raise SurgeryError(
                "bf16_safe_rope per_document=True loses the distance to the anchor; leave it out, or give "
                "anchor_attention reset_positions=True"
            )

    def _refuse_ids(self, document_ids: Tensor, mask: Tensor | None) -> None:
        if document_ids.shape != (self.batch, self.length):
            shapes = f"{tuple(document_ids.shape)} for tokens of {(self.batch, self.length)}"
            raise SurgeryError(f"document_ids has shape {shapes}")
        if mask is not None and not torch.equal(mask != 0, document_ids != PADDING):
            raise SurgeryError("attention_mask and document_ids disagree on which tokens are padding")

    def _refuse(self) -> None:
        for name in ELSEWHERE:
            if self.named.get(name, self.others.get(name)) is not None:
                why = "padding-free attention keeps no cache and sees no other sequence"
                raise SurgeryError(f"{name}: {why}; undo it to generate")
        if self.named.get("use_cache"):
            raise SurgeryError("use_cache=True: padding-free attention keeps no cache; undo it to generate")
        if "use_cache" in inspect.signature(stock_class(self.model).forward).parameters:
            self.named["use_cache"] = False
        for name in ("output_attentions", *(["output_hidden_states"] if self.labelled is not None else [])):
            if self.others.get(name, getattr(self.model.config, name, False)):
                raise SurgeryError(f"{name}=True: not with this layout; leave it out, or the labels")


def rotation(model: Any, args: tuple, kwargs: dict[str, Any]) -> Rotation:
    """The positions that the stock model would use in this call."""
    named, others = bound(model, args, kwargs)
    given = {**others, **named}
    cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
    positions = named.get("position_ids")
    refuse_static(cache)
    if positions is not None:
        return Rotation(positions)
    ids = named.get("input_ids")
    tokens: Any = named.get("inputs_embeds") if ids is None else ids
    past = 0 if cache is None else cache.get_seq_length()
    return Rotation(torch.arange(past, past + tokens.shape[1], device=tokens.device)[None])


def pooled(model: Any, hidden: Tensor) -> Tensor:
    """The pooled output of `hidden` (batch, length, hidden)."""
    if isinstance(model.pooler, nn.Linear):  # ALBERT
        return model.pooler_activation(model.pooler(hidden[:, 0]))
    return model.pooler(hidden)


def _roberta_padding(model: Any) -> int | None:
    """The padding id from which RoBERTa and its like count positions; None for others."""
    for module in model.children():
        if hasattr(module, "create_position_ids_from_input_ids"):
            return module.padding_idx
    return None
