"""The modules of a model that matter to attention, and the name of the implementation that they call.

Transformers looks attention up by `config._attn_implementation`. While the seam is open, that is the seam's
own name. There is one name for each stock implementation, so that a new model made from the config of a
changed one computes as stock.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cadenza.attention.plan import plan_of
from cadenza.attention.stock_calls import on_padding
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Mixin, Stage, bound, stock_class

# The encoders with biases, norms behind the sums, and learned positions, which make their heads alike.
ENCODERS = ("Bert", "Roberta", "XLMRoberta", "Electra", "Albert", "DistilBert")
ENCODER_ATTENTIONS = (
    *("BertSelfAttention", "RobertaSelfAttention", "XLMRobertaSelfAttention", "ElectraSelfAttention"),
    *("AlbertAttention", "DistilBertSelfAttention"),
)

SEAM = "cadenza"
SEAMS = {"sdpa": SEAM, "eager": f"{SEAM}_eager"}
STOCK = {name: stock for stock, name in SEAMS.items()}


def attention_modules(model: nn.Module) -> Iterator[Any]:
    """The attention modules of `model` that call the attention interface."""
    return (module for module in model.modules() if is_attention(module))


def is_attention(module: nn.Module) -> bool:
    """Whether `module` calls the attention interface, as transformers' own attention classes do."""
    if not (_has(module, "is_causal") and _has(module, "config")):
        return False
    return hasattr(sys.modules.get(stock_class(module).__module__), "ALL_ATTENTION_FUNCTIONS")


def _has(module: nn.Module, name: str) -> bool:
    """`hasattr` without the error that modules raise inside: each is asked once a batch."""
    return name in vars(module) or hasattr(type(module), name)


def base_models(model: nn.Module) -> list[Any]:
    """The models without a head in `model` that use the attention interface; no encoder-decoders.

    Of models in one another it is the innermost, which calls the layers.
    """
    found = (m for m in model.modules() if isinstance(m, PreTrainedModel) and m.base_model is m)
    bases = [m for m in found if not m.config.is_encoder_decoder and any(attention_modules(m))]
    return [m for m in bases if not any(inner in m.modules() for inner in bases if inner is not m)]


def is_cross_attention(module: nn.Module) -> bool:
    """Whether `module` attends to another sequence; no technique changes that."""
    named = "CrossAttention" in stock_class(module).__name__
    in_decoder = getattr(module, "is_decoder", False) and not getattr(module, "is_causal", True)
    return named or in_decoder or getattr(module, "is_cross_attention", False)


def stock_name(name: str) -> str:
    """The stock implementation of a config that names `name`, which may be the seam.

    Raises:
        SurgeryError: it is neither `sdpa` nor `eager`.
    """
    if (stock := STOCK.get(name, name)) not in SEAMS:
        raise SurgeryError(f"attn_implementation={stock!r}: load the model with 'sdpa' or 'eager'")
    return stock


class FollowsImplementation(Mixin, of="the attention seam", stage=Stage.ATTENTION):
    """A model whose `set_attn_implementation` changes the stock implementation behind the seam."""

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        model: Any = self
        before = [(module.config, module.config._attn_implementation) for module in planned(model)]
        super().set_attn_implementation(*args, **kwargs)
        try:
            follow(model)
        except SurgeryError:
            for config, name in before:
                config._attn_implementation = name
            raise


class ReadsLabels(Mixin, of="the attention seam", stage=Stage.ATTENTION):
    """A model with a head that tells a base model without padding if a label is predicted from padding."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = self
        base = next(module for module in model.modules() if "batch_plan" in vars(module))
        if base.batch_plan.by_document and kwargs.get("document_ids") is None and "labelled" not in kwargs:
            named, _ = bound(model, args, kwargs)
            if on_padding(named.get("labels"), named.get("attention_mask"), is_causal_model(base)):
                kwargs["needs_padding"] = True
        return super().forward(*args, **kwargs)


def is_causal_model(base: nn.Module) -> bool:
    """Whether the first attention of `base` is causal, so that labels are those of the next token."""
    return bool(next(attention_modules(base)).is_causal)


def planned(model: nn.Module) -> list[Any]:
    """The modules of `model` with a plan."""
    return [module for module in model.modules() if plan_of(module) is not None]


def follow(model: nn.Module) -> None:
    """Put the seam in front of an implementation that was set after the seam was opened.

    Raises:
        SurgeryError: it is neither `sdpa` nor `eager`.
    """
    modules = planned(model)
    names = {id(module.config): stock_name(module.config._attn_implementation) for module in modules}
    for module in modules:
        stock = names[id(module.config)]
        kind = "attention_plan" if "attention_plan" in vars(module) else "batch_plan"
        setattr(module, kind, replace(plan_of(module), stock=stock))
        module.config._attn_implementation = SEAMS[stock]
