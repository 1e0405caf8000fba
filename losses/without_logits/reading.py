"""Which loss the stock code of a model computes: found by a short call, and proved by it.

In that call the output layer returns known numbers in place of its own. The loss that the model returns, and
its gradient in these numbers, are compared with each loss that the config could mean. One that is equal is
what the model computes, whatever its code looks like. No weight is read, so a model on meta is read as well.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cadenza.losses.masked_lm import IGNORED
from cadenza.losses.row_losses import LogitMap
from cadenza.losses.without_logits.output_layer import Numbers, words_of, working
from cadenza.probes.sequences import Draw
from cadenza.probes.untouched import untouched
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class

SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
SIZE = 30.0  # of the numbers: a softcap changes them
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reading:
    """The loss of a model.

    Args:
        map: from the numbers of the output layer to logits.
        shifts: whether a row predicts the label of the next token.
    """

    map: LogitMap
    shifts: bool

    def targets(self, labels: Tensor, ignored: int = IGNORED) -> Tensor:
        """What each row predicts, in the shape of `labels` (..., length)."""
        return F.pad(labels, (0, 1), value=ignored)[..., 1:] if self.shifts else labels

    def loss(self, numbers: Tensor, labels: Tensor) -> Tensor:
        """The mean over the labelled rows."""
        return F.cross_entropy(self.map(numbers).flatten(0, -2), self.targets(labels).flatten())


def read(host: Any, layer: Any) -> Reading:
    """The loss of `host`, whose output layer is `layer`.

    Raises:
        SurgeryError: it is no cross-entropy of the numbers of `layer`, or the model can't be called.
    """
    name = stock_class(host).__name__
    try:
        with untouched(host), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(host.eval(), layer)
    except SurgeryError as error:
        raise SurgeryError(f"{name}: {error}") from error
    except Exception as error:  # an unknown model may raise anything
        raise SurgeryError(f"{name} can't be called on a few tokens with labels: {error!r:.200}") from error


def _read(host: Any, layer: Any) -> Reading:
    device = layer.weight.device
    real = torch.device("cpu") if device.type == "meta" else device
    with torch.device("cpu"):  # while transformers loads a model, the default device is meta
        ids, labels, numbers = _drawn(host, layer)
    labels, numbers = labels.to(real), numbers.to(real).requires_grad_()
    found = _stock(host, layer, ids.to(device), labels, numbers)
    for reading in _readings(host.config.get_text_config()):
        expected = _with_gradient(reading.loss(numbers, labels), numbers)
        if all(_same(*pair) for pair in zip(found, expected, strict=True)):
            return reading
    raise SurgeryError(
        "its loss isn't the cross-entropy of its output layer's logits, as far as "
        f"{', '.join((*SCALES, *SOFTCAPS))} of its config say"
    )


def _drawn(host: Any, layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and labels (2, 7), and numbers (2, 7, words) of the output layer."""
    draw = Draw(host)
    ids, labels = draw.tokens(2, 7), draw.tokens(2, 7)
    labels[0, :2] = labels[1, -1] = IGNORED
    return ids, labels, SIZE * draw.weights(2, 7, words_of(layer))


def _stock(host: Any, layer: Any, ids: Tensor, labels: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the stock code without losses of routers, and its gradient in `numbers`."""
    job, forward = Numbers(numbers), stock_class(host).forward
    tokens: dict[str, Any] = {"input_ids": ids}
    if ids.is_meta:  # some models look for padding among ids
        tokens = {"inputs_embeds": host.get_input_embeddings()(ids)}
    with working(layer, job):
        output = forward(host, **tokens, labels=labels, return_dict=True)
    loss = output.get("loss")
    if job.calls != 1 or loss is None:
        what = f"calls its output layer {job.calls} times" if job.calls != 1 else "returns no loss"
        raise SurgeryError(f"with input_ids and labels it {what}")
    router = router_loss(host, output)
    return _with_gradient(loss if router is None else loss - router, numbers)


def router_loss(host: Any, output: Any) -> Tensor | None:
    """What the stock code adds to the cross-entropy for the balance of experts; None if it adds nothing."""
    if (loss := output.get("aux_loss")) is None:
        return None
    if (factor := getattr(host, "router_aux_loss_coef", None)) is None:
        raise SurgeryError("it has an aux_loss of unknown weight; set output_router_logits=False")
    return factor * loss


def _readings(config: Any) -> Iterator[Reading]:
    scales = [float(each) for name in SCALES if (each := getattr(config, name, None))]
    softcaps = [float(each) for name in SOFTCAPS if (each := getattr(config, name, None))]
    factors = (1.0, *(factor for scale in scales for factor in (scale, 1 / scale)))
    for shifts, scale, softcap in product((False, True), factors, (None, *softcaps)):
        yield Reading(LogitMap(scale, softcap), shifts)


def _with_gradient(loss: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss, numbers)[0]


def _same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())
