"""Pre-norm: residual connections that pass the norms by."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import move_module
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, is_stock, mix

__all__ = ["PreNorm", "apply_pre_norm"]


@dataclass(repr=False, eq=False)
class PreNorm(Surgery):
    """Turns `norm(x + f(x))` into `x + f(norm(x))` in every attention and feed-forward.

    Xiong et al., arXiv 2002.04745, figure 1, with the norms of ModernBERT (arXiv 2412.13663, section 2.1.1).
    Each norm keeps its place in the sequence of layers; only the sums pass it by. So the norm behind an
    attention becomes that before the feed-forward, and the norm behind a layer that before the next
    attention. The norm of the embeddings serves the first attention, and the last norm is the final norm.
    No parameter is added. Moved norms have state-dict keys that end with `norm.weight` and `norm.bias`, in
    the attention and in the feed-forward.

    Use it when pretraining from scratch, above all with many layers or a high learning rate: gradients of
    the first layers don't vanish, and training needs less warm-up. It adds no work. A pretrained model
    computes something else, and has to be trained again.

    Works on BERT, RoBERTa, XLM-RoBERTa, ELECTRA and DistilBERT; ALBERT's layers share their norms.
    """

    stage = Stage.STRUCTURE

    def edit(self, site: Site) -> Iterator[Undo]:
        if not is_stock(site.module, *ENCODERS):
            return
        layers: Any = site.module.layer
        _refuse_other_layers(site.path, layers)
        places = [_places(layer) for layer in layers]
        for _, feed_forward, behind_attention, _ in places:
            yield from _move(behind_attention, feed_forward)
        for (_, _, _, behind_layer), (attention, _, _, _) in pairwise(places):
            yield from _move(behind_layer, attention)


ENCODERS = ("BertEncoder", "RobertaEncoder", "XLMRobertaEncoder", "ElectraEncoder", "Transformer")


def apply_pre_norm(model: nn.Module, *, optimizers: Optimizers = None) -> Report:
    """Let the residual connections of `model` pass its norms by, in place; see `PreNorm`.

    Raises:
        NoEffect: the model contains no encoder of BERT, RoBERTa, XLM-RoBERTa, ELECTRA or DistilBERT.
        SurgeryError: its layers have cross-attention, or one of them stands in two places.
    """
    return PreNorm().operate(model, optimizers)


class AfterNorm(Mixin, of="pre_norm", stage=Stage.STRUCTURE):
    """An attention or a feed-forward that normalizes its input by `norm`."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(self.norm(hidden_states), *args, **kwargs)


Norm = tuple[nn.Module, str]  # the module that holds a norm, and its name there


def _places(layer: Any) -> tuple[nn.Module, nn.Module, Norm, Norm]:
    """The attention and the feed-forward of `layer`, and the norms behind them."""
    if is_stock(layer, "TransformerBlock"):  # DistilBERT's
        return layer.attention, layer.ffn, (layer, "sa_layer_norm"), (layer, "output_layer_norm")
    attention = layer.attention
    return attention.self, layer.intermediate, (attention.output, "LayerNorm"), (layer.output, "LayerNorm")


def _move(norm: Norm, target: nn.Module) -> Iterator[Undo]:
    yield move_module(*norm, target, "norm")
    yield mix(target, AfterNorm)


def _refuse_other_layers(path: str, layers: Any) -> None:
    if len(set(layers)) < len(layers):
        raise SurgeryError(f"{path}: a layer stands in two places, but its norms can't; give each its own")
    if any(hasattr(layer, "crossattention") for layer in layers):
        raise SurgeryError(f"{path}: its layers have cross-attention; pre_norm is for encoders")
