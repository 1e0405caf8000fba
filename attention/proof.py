"""Proves on a model itself that a technique may change its attention.

Some families are tested with any config (`TESTED`). Any other model proves a technique when it is applied, by
a few short calls of its own base model:

1. `mixes_by_attention`: if attention lets each token see itself alone, no token reaches another one. So
   nothing mixes tokens outside of the seam: no convolution, no recurrence, no other attention.
2. `masks_are_known`: each mask hides what causality and a window hide, and no option is unknown to kernels.
3. `rows_equal_stock`: computed by document, padded rows equal those of the stock code.
4. `documents_equal_rows`: a packed document equals the document alone in its row.
5. `forgets_positions`: if every token sees every other one, the order of tokens doesn't matter.

The first two find what a comparison of outputs misses in a new model, whose scores and weights are small. The
calls are in eval mode, on random tokens; the model and the random state stay as they were.
"""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.attention.call import is_causal, refuse_unknown
from cadenza.attention.modules import base_models
from cadenza.attention.rotary.tables import by_length, is_rotary, layer_types
from cadenza.attention.watch import Watch, hides_the_same, watched
from cadenza.probes.sequences import Draw
from cadenza.probes.untouched import untouched
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.retype import stock_class

TESTED = {
    f"transformers.models.{name}.modeling_{name}"
    for name in (
        *("albert", "bert", "distilbert", "electra", "gpt2", "llama", "mistral", "modernbert"),
        *("qwen2", "qwen3", "roberta", "xlm_roberta"),
    )
}
LENGTHS = (7, 12, 5)  # tokens of the rows, or of the documents
EXACT = 8.0  # epsilons, where the same numbers are added; only a router of experts may order them otherwise
ROUNDED = 1e3  # epsilons, where another kernel computes
SKIP = "prove=False applies it all the same"


class Subject:
    """A base model under proof, and tokens to call it with."""

    def __init__(self, base: Any) -> None:
        self.base, self.draw = base, Draw(base)
        self.device = base.get_input_embeddings().weight.device

    def tokens(self, *shape: int) -> Tensor:
        """Random tokens of `shape`."""
        return self.draw.tokens(*shape).to(self.device)

    def hidden(self, ids: Tensor, **inputs: Any) -> Tensor:
        """(batch, length, hidden), the last hidden state of the model as it is, with the techniques on it."""
        if "use_cache" in inspect.signature(stock_class(self.base).forward).parameters:
            inputs["use_cache"] = False
        return self.base(input_ids=ids, **inputs)[0]

    def stock(self, ids: Tensor, watch: Watch | None = None, **inputs: Any) -> Tensor:
        """`hidden`, but computed by the stock code, watched by `watch`."""
        plan = self.base.batch_plan
        self.base.batch_plan = replace(plan, kernel=None, layout=None, packing=None)
        try:
            with watched(self.base, watch or Watch()):
                return self.hidden(ids, **inputs)
        finally:
            self.base.batch_plan = plan


Claim = Callable[[Subject], None]
"""Raises a `SurgeryError` if a base model doesn't meet it."""


def prove(model: nn.Module, *claims: Claim) -> None:
    """Check `claims` on each base model of `model` that isn't of a tested family.

    Raises:
        SurgeryError: a claim doesn't hold, or the model can't be called.
    """
    for base in base_models(model):
        if not is_tested(base):
            _prove(base, claims)


def refuse_on_meta(base: Any) -> None:
    """Raise if `base`, which has no numbers, is of no tested family."""
    if not is_tested(base):
        name = stock_class(base).__name__
        raise SurgeryError(f"{name} is of no tested family, and nothing can be proved on meta; {SKIP}")


def is_tested(base: Any) -> bool:
    """Whether techniques are tested on the family of `base` with any config."""
    return stock_class(base).__module__ in TESTED


def _prove(base: Any, claims: tuple[Claim, ...]) -> None:
    name = stock_class(base).__name__
    if any(parameter.is_meta for parameter in base.parameters()):
        refuse_on_meta(base)
    with untouched(base), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base.eval()
        try:
            for claim in claims:
                claim(Subject(base))
        except SurgeryError as error:
            raise SurgeryError(f"{name}: {error}; {SKIP}") from error
        except Exception as error:  # an unknown model may raise anything
            raise SurgeryError(f"{name} can't be called on a few tokens: {error!r:.200}; {SKIP}") from error


def mixes_by_attention(subject: Subject) -> None:
    """If attention lets each token see itself alone, no token reaches another one."""
    ids = subject.tokens(1, max(LENGTHS)).repeat(2, 1)
    place = LENGTHS[0]
    ids[1, place] = subject.draw.others(ids[:1, place].cpu()).to(ids.device)
    watch = Watch(seen=torch.eye(max(LENGTHS), dtype=torch.bool, device=ids.device))
    one, other = subject.stock(ids, watch)
    if not watch.calls:
        raise SurgeryError("it computes attention in a way that isn't on transformers' attention interface")
    elsewhere = torch.arange(len(one), device=ids.device) != place
    _same(other[elsewhere], one[elsewhere], "tokens reach each other outside of attention", EXACT)


def masks_are_known(subject: Subject) -> None:
    """Each mask hides what causality and a window hide, and kernels know each option."""
    ids, mask = _padded(subject)
    watch = Watch()
    subject.stock(ids, watch, attention_mask=mask)
    for module, options, own in watch.calls:
        refuse_unknown(module, options)
        hidden = {"causal": is_causal(module, options), "window": options.get("sliding_window")}
        function = None if own is None else watch.function(own)
        if own is not None and function is None:
            raise SurgeryError(f"{type(module).__name__} gets a mask that the model made itself")
        if function is None and hidden["window"] is None:
            continue
        if function is None or not hides_the_same(function, module.config, **hidden):
            said = ", ".join(f"{name}={value}" for name, value in hidden.items())
            raise SurgeryError(f"the mask of {type(module).__name__} isn't that of attention with {said}")


def options_are_known(subject: Subject) -> None:
    """Kernels know each option, so that none selects keys by scores of its own."""
    watch = Watch()
    subject.stock(subject.tokens(1, max(LENGTHS)), watch)
    for module, options, _ in watch.calls:
        refuse_unknown(module, options)


def rows_equal_stock(subject: Subject) -> None:
    """Computed by document, padded rows equal those of the stock code at real tokens."""
    ids, mask = _padded(subject)
    ours, stock = (call(ids, attention_mask=mask) for call in (subject.hidden, subject.stock))
    real = mask.bool()
    _same(ours[real], stock[real], "padded rows, computed by document, aren't those of the stock code")


def documents_equal_rows(subject: Subject) -> None:
    """A packed document equals the document alone in its row."""
    rows = [subject.tokens(1, length) for length in LENGTHS]
    numbers = torch.arange(1, len(LENGTHS) + 1).repeat_interleave(torch.tensor(LENGTHS))[None]
    packed = subject.hidden(torch.cat(rows, dim=1), document_ids=numbers.to(subject.device))
    alone = torch.cat([subject.stock(row) for row in rows], dim=1)
    _same(packed, alone, "packed documents aren't what each of them is alone")


def documents_are_apart(subject: Subject) -> None:
    """No document changes with another one; what lies in front of them is the anchor."""
    first, second = LENGTHS[:2]
    ids = subject.tokens(1, 1 + first + second).repeat(2, 1)
    ids[1, 1 : 1 + first] = subject.draw.others(ids[0, 1 : 1 + first].cpu()).to(ids.device)
    numbers = torch.tensor([0, *[1] * first, *[2] * second], device=ids.device).expand_as(ids)
    one, other = subject.hidden(ids, document_ids=numbers)[:, 1 + first :]
    _same(other, one, "documents reach each other", EXACT)


def forgets_positions(subject: Subject) -> None:
    """If every token sees every other one, the order of tokens doesn't matter."""
    ids = subject.tokens(1, max(LENGTHS))
    seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device)
    order = subject.draw.weights(ids.shape[1]).argsort().to(ids.device)  # not reversed: distances would stay
    there, shuffled = (subject.stock(x, Watch(seen=seen)) for x in (ids, ids[:, order]))
    _same(shuffled, there[:, order], "positions remain, which this technique doesn't know how to remove")


def refuse_scaling_by_length(base: Any) -> None:
    """Raise if rotary frequencies of `base` depend on the longest position in a batch.

    Then a document computes something else without the padding beside it, or in a packed row.
    """
    for rotary in filter(is_rotary, base.modules()):
        if any(by_length(rotary, layer_type) for layer_type in layer_types(rotary)):
            name = stock_class(base).__name__
            kind = rotary.rope_type
            raise SurgeryError(
                f"{name} has rope type {kind!r}, whose frequencies follow the longest position in a batch; "
                "choose a fixed rope type"
            )


def _padded(subject: Subject) -> tuple[Tensor, Tensor]:
    """Rows of `LENGTHS`, the last one padded on its left side, and their mask, both (rows, longest)."""
    pad = getattr(subject.base.config, "pad_token_id", None)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long, device=subject.device)
    for row, length in enumerate(LENGTHS[:-1]):
        mask[row, :length] = 1
    mask[-1, -LENGTHS[-1] :] = 1
    ids = subject.tokens(*mask.shape)
    return ids.masked_fill(mask == 0, pad if isinstance(pad, int) and pad >= 0 else 0), mask


def _same(found: Tensor, expected: Tensor, otherwise: str, epsilons: float = ROUNDED) -> None:
    """Raise unless two hidden states are equal to rounding, by the root mean square of the difference."""
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    if not error <= (limit := min(epsilons * torch.finfo(expected.dtype).eps, 0.05)):
        raise SurgeryError(f"{otherwise}: a relative difference of {error:.1e}, beyond {limit:.0e}")
