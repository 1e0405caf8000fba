"""One call of a base model that computes by document, without padding, or only for labelled rows.

1. `describe` turns `attention_mask` or `document_ids` into `Documents`, and computes the positions. If the
   call can't be computed by document, it returns the reason, and the stock `forward` runs.
2. `unpad` gathers the documents' tokens into one row.
3. `restart_positions` counts positions by document, if an exact rotation claims that.
4. `rotate` computes a claimed rotation, which layers hand on as a keyword argument.
5. The stock `forward` runs with the new arguments. Layers hand `documents` on as a keyword argument.
6. `finish` selects the labelled rows, or scatters the tokens back to their places.

The obvious way unpads inside each attention: every layer moves tokens, and all else is computed on padding.
Here the batch is read once, with one synchronization. The cost: layers must pass keyword arguments on.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils.generic import ModelOutput

from cadenza.attention.anchor import Anchor
from cadenza.attention.documents import PADDING, Documents, from_ids, from_mask
from cadenza.attention.modules import attention_modules
from cadenza.attention.poolers import pooled, pooled_documents
from cadenza.attention.positions import first_position, stock_positions
from cadenza.attention.rotary.rotation import ARGUMENT, Rotation
from cadenza.attention.stock_calls import ON_PADDING, needs_stock, starts_anew
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import bound, stock_class
from cadenza.surgery.runtime import uncompiled

PADDED = ("last_hidden_state", "hidden_states", "router_logits")  # outputs that have a row for each token
TOKENWISE = ("input_ids", "inputs_embeds", "token_type_ids", "position_ids")


class BatchCall:
    """The arguments of one call, and what is needed to restore the shapes of its output.

    Args:
        model: the base model, with its plan.
        args, kwargs: the arguments of the call.
        labelled: (rows,) places of the labelled tokens in the flattened batch; None: select no rows.
    """

    def __init__(self, model: Any, args: tuple, kwargs: dict[str, Any], labelled: Tensor | None) -> None:
        self.model, self.plan, self.labelled = model, model.batch_plan, labelled
        self.named, self.others = bound(model, args, kwargs)
        self.unpadded: Documents | None = None
        self.packed = False  # several documents may share a row
        self._refuse_hidden_states()
        wants_dict = self.others.pop("return_dict", None)
        self.wants_dict = model.config.return_dict if wants_dict is None else wants_dict
        self.others["return_dict"] = True
        tokens = self.tokens
        self.batch, self.length, self.device = *tokens.shape[:2], tokens.device

    @property
    def tokens(self) -> Tensor:
        """`input_ids`, or `inputs_embeds`, as they are now."""
        return tokens_of(self.named)

    @property
    def anchor(self) -> Anchor | None:
        """How to read `document_ids` if they may contain anchors."""
        return self.plan.packing if isinstance(self.plan.packing, Anchor) else None

    def describe(self, document_ids: Tensor | None) -> str | None:
        """Pass the documents to the layers, in place of a mask; or return why that is impossible.

        Args:
            document_ids: (batch, length); None: each row is one document.
        """
        mask = self.named.get("attention_mask")
        if reason := needs_stock(self.named, self.others, self.model.config):
            return reason
        documents = self._documents(document_ids, mask)
        if isinstance(documents, str):
            return documents
        if document_ids is None:
            anew = starts_anew(self.named.get("position_ids"), mask)
            if reason := anew or self._labelled_padding(mask):
                return reason
        if "use_cache" in inspect.signature(stock_class(self.model).forward).parameters:
            self.named["use_cache"] = False
        self.named["position_ids"] = self._positions(documents, packed=document_ids is not None)
        # Transformers passes a 4D mask on unchanged. This one fits no scores: attention refuses it without
        # `documents`. Without a mask a layer that loses `documents` would attend across them.
        self.named["attention_mask"] = torch.ones(1, 1, 0, 0, dtype=torch.bool, device=self.device)
        documents.passed, self.packed = frozenset(self.others), document_ids is not None
        self.others["documents"] = documents
        return None

    @uncompiled  # else each number of documents would have a graph of its own
    def unpad(self) -> None:
        """Gather the documents' tokens into one row: (batch, length, ...) -> (1, total, ...)."""
        documents: Documents = self.others["documents"]
        for name in TOKENWISE:
            if self.named.get(name) is not None:
                self.named[name] = documents.gather(self.named[name])
        if self.labelled is not None and documents.indices is not None:
            self.labelled = self._gathered_places(documents.indices, self.labelled)
        self.unpadded, self.others["documents"] = documents, documents.without_padding()

    def restart_positions(self) -> None:
        """Count positions from the start of each document, whatever `position_ids` say."""
        documents: Documents | None = self.others.get("documents")
        if documents is None:
            return
        if not documents.anchors:
            positions = documents.scatter(documents.positions[None], *self.tokens.shape[:2])
            self.named["position_ids"] = positions
        elif not (self.anchor and self.anchor.reset_positions):
            raise SurgeryError(
                "bf16_safe_rope per_document=True loses the distance to the anchor; leave it out, or "
                "give anchor_attention reset_positions=True"
            )

    def rotate(self, rotation: Rotation) -> None:
        """Pass cos and sin of the positions to the layers, which rotate by them."""
        heads = next(attention_modules(self.model)).attention_head_size
        positions = stock_positions(self.model, self.named, self.tokens)
        dtype = self.model.get_input_embeddings().weight.dtype
        self.others[ARGUMENT] = rotation.positions(positions, heads, dtype)

    def finish(self, output: ModelOutput) -> Any:
        """Select the labelled rows, or scatter the tokens back: (1, total, ...) -> (batch, length, ...)."""
        if self.labelled is not None and self.plan.rows == "output":
            hidden = output["last_hidden_state"].flatten(0, 1)  # (tokens, hidden)
            output["last_hidden_state"] = hidden.index_select(0, self.labelled)[None]  # (1, rows, hidden)
        if self.packed and "pooler_output" in output:  # the stock pooler has read rows
            documents, hidden = self.others["documents"], output["last_hidden_state"]
            output["pooler_output"] = pooled_documents(self.model, documents, hidden)
        if self.unpadded is not None:
            self._pad(self.unpadded, output)
        return output if self.wants_dict else output.to_tuple()

    def _pad(self, documents: Documents, output: ModelOutput) -> None:
        def padded(tokens: Any) -> Any:
            if tokens is None or isinstance(tokens, tuple):
                return tokens and tuple(padded(each) for each in tokens)
            if tokens.ndim == 2:  # (total, experts), the logits of a router
                return documents.scatter(tokens[None], self.batch, self.length).flatten(0, 1)
            return documents.scatter(tokens, self.batch, self.length)

        for name in output:
            if name in PADDED and not (name == PADDED[0] and self.labelled is not None):
                output[name] = padded(output[name])
            elif name == "pooler_output" and not self.packed:  # it has read the first token of the batch
                output[name] = pooled(self.model, output["last_hidden_state"])
            elif name not in (*PADDED, "pooler_output"):
                raise SurgeryError(f"unpadding doesn't know the output {name} of {type(self.model).__name__}")

    def _positions(self, documents: Documents, packed: bool) -> Tensor:
        """(batch, length), the positions of the stock model; within each document if `packed`."""
        if not packed or self.named.get("position_ids") is not None:
            return stock_positions(self.model, self.named, self.tokens)
        if not self.anchor:
            positions = documents.positions + first_position(self.model)
        elif (positions := self.anchor.positions(documents)) is None:
            return torch.arange(self.length, device=self.device).expand(self.batch, self.length)
        return documents.scatter(positions[None], self.batch, self.length)

    def _gathered_places(self, indices: Tensor, labelled: Tensor) -> Tensor:
        """(rows,) places in the flattened batch -> places among the tokens gathered by `indices`."""
        places = torch.full((self.batch * self.length,), -1, device=self.device)
        places[indices] = torch.arange(len(indices), device=self.device)
        return places[labelled]

    def _documents(self, document_ids: Tensor | None, mask: Tensor | None) -> Documents | str:
        if document_ids is None:
            return from_mask(mask, self.batch, self.length, self.device)
        check_ids(document_ids, self.tokens, mask)
        return (self.anchor.documents if self.anchor else from_ids)(document_ids, self.device)

    @uncompiled  # reads values
    def _labelled_padding(self, mask: Tensor | None) -> str | None:
        """The reason if a labelled place is padding."""
        if self.labelled is None or mask is None or bool(mask.flatten()[self.labelled].all()):
            return None
        return ON_PADDING

    def _refuse_hidden_states(self) -> None:
        name = "output_hidden_states"
        if self.labelled is not None and self.others.get(name, getattr(self.model.config, name, False)):
            raise SurgeryError(f"{name}=True isn't supported with labels; leave one of them out")


def tokens_of(named: Mapping[str, Any]) -> Tensor:
    """`input_ids` (batch, length) or, if there are none, `inputs_embeds` (batch, length, hidden)."""
    given = [named[name] for name in TOKENWISE[:2] if named.get(name) is not None]
    if len(given) != 1:
        raise SurgeryError("pass exactly one of input_ids and inputs_embeds")
    return given[0]


def check_ids(document_ids: Tensor, tokens: Tensor, mask: Tensor | None) -> None:
    """Raise if `document_ids` (batch, length) don't fit `tokens` (batch, length, ...), or `mask`."""
    if document_ids.shape != tokens.shape[:2]:
        shapes = f"{tuple(document_ids.shape)} for tokens of {tuple(tokens.shape[:2])}"
        raise SurgeryError(f"document_ids has shape {shapes}")
    if mask is not None and not torch.equal(mask != 0, document_ids != PADDING):
        raise SurgeryError("attention_mask and document_ids disagree on which tokens are padding")
