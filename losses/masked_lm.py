"""The loss of a masked LM of transformers: which one it is, and what a caller may tell it."""

import inspect
from typing import Any

from torch import Tensor, nn
from transformers.loss.loss_utils import LOSS_MAPPING, ForMaskedLMLoss, fixed_cross_entropy

from cadenza.surgery.errors import SurgeryError

IGNORED = -100  # the label of a token that isn't predicted
NAMES = ("loss_function", "mlm_loss_fct", "CrossEntropyLoss")
PARAMETERS = {
    *inspect.signature(ForMaskedLMLoss).parameters,
    *inspect.signature(fixed_cross_entropy).parameters,
}
OTHERS = PARAMETERS - {"num_items_in_batch", "ignore_index"}  # left to the stock loss


def loss_name(stock: Any) -> str | None:
    """The name by which the `forward` of the class `stock` finds its loss; None if it is none of `NAMES`.

    It is read from the code, because transformers moves one family after the other to `loss_function`.
    """
    used = inspect.unwrap(stock.forward).__code__.co_names
    return next((name for name in NAMES if name in used), None)


def loss_options(name: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Those of a model's keyword arguments that reach the loss found by `name`."""
    return kwargs if name == "loss_function" else {}


def is_cross_entropy(model: Any, name: str | None, options: dict[str, Any]) -> bool:
    """Whether the loss of `model` is the cross-entropy of labelled tokens, a mean unless `options` count.

    Raises:
        SurgeryError: it is another loss of transformers, which may read more than the labelled tokens.
    """
    if name == "loss_function":
        return _is_stock(model.loss_function) and not (model.sparse_prediction or OTHERS & options.keys())
    if name == "mlm_loss_fct":
        return is_mean(model.mlm_loss_fct)
    return name == "CrossEntropyLoss"


def _is_stock(loss: Any) -> bool:
    if loss is not ForMaskedLMLoss and loss in LOSS_MAPPING.values():
        raise SurgeryError(
            f"sparse_prediction: the model's loss is {loss.__name__}, which may read tokens without a label; "
            "set loss_type='ForMaskedLM' in the model and its config"
        )
    return loss is ForMaskedLMLoss


def is_mean(loss: Any) -> bool:
    """Whether the module `loss` is the mean cross-entropy of the labelled rows."""
    plain = type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.label_smoothing == 0
    return plain and (loss.ignore_index, loss.reduction) == (IGNORED, "mean")


def check_labels(labels: Tensor, input_ids: Tensor | None = None, **kwargs: Any) -> None:
    """Raise unless there is one label for each token: rows are selected by place in the flattened batch."""
    embeds = kwargs.get("inputs_embeds")
    shape = input_ids.shape if input_ids is not None else None if embeds is None else embeds.shape[:-1]
    if shape is not None and labels.numel() != shape.numel():
        raise SurgeryError(f"labels have shape {tuple(labels.shape)} for tokens of {tuple(shape)}")
