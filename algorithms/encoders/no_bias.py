"""No biases: linear layers and norms without their additive terms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from cadenza.attention.modules import ENCODERS
from cadenza.options import option
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.parameters import had_parameter, set_attributes, take_parameter
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Mixin, Stage, Undo, is_stock, mix, stock_class

__all__ = ["NoBias", "apply_no_bias"]

# The layers of outputs, by the last part of their path: of labels, of spans, of words.
OUTPUTS = ("classifier", "out_proj", "qa_outputs", "seq_relationship", "dense_prediction")


@dataclass(repr=False, eq=False)
class NoBias(Surgery):
    """Takes the biases of linear layers and norms away.

    As in ModernBERT (arXiv 2412.13663, section 2.1.1) and the Cramming recipe (arXiv 2212.14034). A table of
    token types with one row is a bias of the embeddings, and goes too: `config.type_vocab_size: 1` asks for
    that. State-dict keys that end with `bias` are gone.

    Use it when pretraining from scratch: it saves less than 0.1 % of the parameters and a few small kernels.
    A pretrained model computes something else without its biases, and has to be trained again.

    Works on BERT, RoBERTa, XLM-RoBERTa, ELECTRA, ALBERT and DistilBERT.
    """

    keep_output: bool = option(
        True,
        "Whether the layer of the outputs keeps its bias: the decoder of a masked LM, the classifier of "
        "labels. ModernBERT keeps it.",
    )
    stage = Stage.STRUCTURE

    def edit(self, site: Site) -> Iterator[Undo]:
        module: Any = site.module
        if site.host is None or not _is_claimed(site.host):
            return
        if self.keep_output and _is_output(site):
            return
        if stock_class(module) in (nn.Linear, nn.LayerNorm) and had_parameter(module, "bias"):
            yield take_parameter(module, "bias")
        elif is_stock(module, *HEADS):
            yield set_attributes(module, _is_hf_initialized=True)  # else transformers initializes a None
            yield take_parameter(module, "bias")
        elif site.path.endswith("token_type_embeddings") and module.num_embeddings == 1:
            yield set_attributes(module, _is_hf_initialized=True)
            yield take_parameter(module, "weight")
            yield mix(module, NoTokenType)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        """Transformers must not tie what is gone."""
        for host in report.model.modules():
            ties = vars(host).get("all_tied_weights_keys", {})
            left = {to: of for to, of in ties.items() if _stays(host, to)}
            if len(left) < len(ties):
                yield set_attributes(host, all_tied_weights_keys=left)


# Heads that hold the bias of their decoder a second time.
HEADS = ("BertLMPredictionHead", "RobertaLMHead", "XLMRobertaLMHead", "AlbertMLMHead")


def apply_no_bias(model: nn.Module, keep_output: bool = True, *, optimizers: Optimizers = None) -> Report:
    """Take the biases of `model` away, in place; see `NoBias`.

    Raises:
        NoEffect: the model is of another family.
    """
    return NoBias(keep_output).operate(model, optimizers)


class NoTokenType(Mixin, of="no_bias", stage=Stage.STRUCTURE):
    """A table of one token type without its row: it returns zero."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and not torch.compiler.is_compiling() and bool(input.any()):
            raise SurgeryError("token_type_ids above 0, but the model has one token type")
        return torch.zeros((), device=input.device)


def _is_claimed(host: PreTrainedModel) -> bool:
    name = stock_class(host).__name__
    return any(name.startswith(f"{family}{kind}") for family in ENCODERS for kind in ("Model", "For"))


def _stays(host: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    return leaf != "bias" or getattr(host.get_submodule(path), leaf) is not None


def _is_output(site: Site) -> bool:
    host: Any = site.host
    if site.module is host.get_output_embeddings() or is_stock(site.module, *HEADS):
        return True
    return isinstance(site.module, nn.Linear) and site.path.rpartition(".")[2] in OUTPUTS
