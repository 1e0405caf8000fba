"""What a caller may tell the loss of a model without logits, and what is refused."""

from typing import Any

from transformers.loss.loss_utils import ForCausalLMLoss, ForMaskedLMLoss

from cadenza.losses.masked_lm import is_mean, loss_name, loss_options
from cadenza.losses.without_logits.reading import Reading
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class

REFUSED = {"weight", "reduction", "size_average", "reduce", "logits", "source", "target", "vocab_size"}


def loss_arguments(host: Any, reading: Reading, others: dict[str, Any]) -> dict[str, Any]:
    """Those of the keyword arguments `others` that the loss of `host` reads.

    Raises:
        SurgeryError: the loss isn't the one that was read when the technique was applied, or can't be told
            one of these arguments without logits.
    """
    name = loss_name(stock_class(host))
    check_loss(host, reading, name)
    options = loss_options(name, others)
    if wrong := sorted(REFUSED & options.keys()):
        raise SurgeryError(f"chunked_loss: {wrong[0]}= isn't known to a loss without logits; leave it out")
    return options


def check_loss(host: Any, reading: Reading, name: str | None) -> None:
    """Raise if `host` was given another loss than the cross-entropy that `reading` says."""
    if name == "loss_function":
        stock = ForCausalLMLoss if reading.shifts else ForMaskedLMLoss
        other = host.loss_function if host.loss_function is not stock else None
    else:
        fct = host.mlm_loss_fct if name == "mlm_loss_fct" else None
        other = fct if fct is not None and not is_mean(fct) else None
    if other is not None:
        shown = getattr(other, "__name__", type(other).__name__)
        raise SurgeryError(f"chunked_loss: the model's loss is {shown}, which needs logits; undo one of them")
    refuse_own_selection(host)


def refuse_own_selection(host: Any) -> None:
    """Raise if `host` is a ModernBERT that selects rows itself, by another label to ignore."""
    if getattr(host, "sparse_prediction", False):
        raise SurgeryError("chunked_loss: set sparse_prediction=False in the model and its config")
