"""The weighted loss of a causal LM, and the proof that its stock loss is that with all weights 1."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from cadenza.losses.masked_lm import IGNORED, loss_name
from cadenza.losses.without_logits.arguments import REFUSED
from cadenza.losses.without_logits.output_layer import LossLayer, output_layer_of
from cadenza.losses.without_logits.reading import read
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import Stage, mix, stock_class

UNKNOWN = {*REFUSED, "label_smoothing"}  # arguments of losses that the weighted one can't be told


class ReadLayer(LossLayer, of="exposure_weighting", stage=Stage.ATTENTION):
    """An output layer while the loss is read."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


def prove_next_token(host: Any) -> None:
    """Check that the loss of `host` is the cross-entropy of the next token.

    Raises:
        SurgeryError: it is another loss, the output layer is no plain `nn.Linear`, or the model is an
            encoder-decoder.
    """
    layer, name = output_layer_of(host, "exposure_weighting"), stock_class(host).__name__
    assert layer is not None  # the technique looks for models with one
    check_loss(host)
    undo = None if isinstance(layer, LossLayer) else mix(layer, ReadLayer)
    try:
        reading = read(host, layer)
    finally:
        if undo is not None:
            undo()
    if not reading.shifts:
        raise SurgeryError(f"{name} predicts no next token; exposure_weighting is for causal LMs")


def check_loss(host: Any, options: dict[str, Any] | None = None) -> None:
    """Raise if `host` was given a loss of one's own, or if its loss is told what is `UNKNOWN`."""
    if loss_name(stock_class(host)) != "loss_function":
        return
    if host.loss_function is not ForCausalLMLoss:
        shown = getattr(host.loss_function, "__name__", type(host.loss_function).__name__)
        raise SurgeryError(f"exposure_weighting: the model's loss is {shown}, not that of the next token")
    if wrong := sorted(UNKNOWN & (options or {}).keys()):
        raise SurgeryError(f"exposure_weighting: {wrong[0]}= isn't known to the weighted loss; leave it out")


def shifted(rows: Tensor, fill: int) -> Tensor:
    """(batch, length): the entries of the next tokens, and `fill` behind the last one."""
    return F.pad(rows, (0, 1), value=fill)[:, 1:]


def weighted_loss(logits: Tensor, targets: Tensor, weights: Tensor, options: dict[str, Any]) -> Tensor:
    """The weighted sum of cross-entropies over the number of targets, or over `num_items_in_batch`.

    Args:
        logits: (batch, length, words).
        targets, weights: (batch, length), of the next tokens.
        options: `ignore_index` and `num_items_in_batch` are read.
    """
    ignored, count = options.get("ignore_index", IGNORED), options.get("num_items_in_batch")
    logits = logits if logits.element_size() == 8 else logits.float()
    targets = targets.to(logits.device)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=ignored, reduction="none")
    total = (losses * weights.flatten().to(losses)).sum()
    if count is None:
        count = (targets != ignored).sum()
    return total / (count.to(total.device) if isinstance(count, Tensor) else count)
