"""What a model of no tested family proves, each by one or two short calls:

1. `mixes_by_attention`: if attention lets each token see itself alone, no token reaches another one. So
   nothing mixes tokens outside of the seam: no convolution, no recurrence, no other attention.
2. `masks_are_known`: each mask hides what causality and a window hide, and no option is unknown to kernels.
3. `kernel_has_features`: the kernel asked for has the features of the model's attention.
4. `rows_equal_stock`: computed by document, padded rows equal those of the stock code.
5. `documents_equal_rows`: a packed document equals the document alone in its row.

The first two find what a comparison of outputs misses in a new model, whose scores and weights are small. The
calls are in eval mode, on random tokens, with the model's own kernel; the model and the random state stay as
they were.
"""

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall, is_causal, refuse_unknown
from cadenza.attention.documents import Documents
from cadenza.attention.kernels.table import KERNELS, Needs, features, lacks_feature
from cadenza.attention.modules import is_cross_attention
from cadenza.attention.proof.subject import Subject
from cadenza.attention.proof.watch import Watch, hides_the_same
from cadenza.surgery.errors import SurgeryError

LENGTHS = (7, 12, 5)  # tokens of the rows, or of the documents
EXACT = 8.0  # epsilons, where the same numbers are added; only a router of experts may order them otherwise
ROUNDED = 1e3  # epsilons, where another kernel computes


def mixes_by_attention(subject: Subject) -> None:
    """If attention lets each token see itself alone, no token reaches another one."""
    ids = subject.tokens(1, max(LENGTHS)).repeat(2, 1)
    place = LENGTHS[0]
    ids[1, place] = subject.draw.others(ids[:1, place].cpu()).to(ids.device)
    watch = Watch(seen=torch.eye(max(LENGTHS), dtype=torch.bool, device=ids.device))
    one, other = subject.stock(ids, watch)
    if not watch.calls:
        raise SurgeryError("it computes attention in a way that isn't on transformers' attention interface")
    if taken := [module for module, *_ in watch.calls if is_cross_attention(module)]:
        raise SurgeryError(
            f"{type(taken[0]).__name__} is taken for cross-attention, but gets no other sequence"
        )
    elsewhere = torch.arange(len(one), device=ids.device) != place
    same(other[elsewhere], one[elsewhere], "tokens reach each other outside of attention", EXACT)


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


def kernel_has_features(subject: Subject) -> None:
    """The kernel asked for computes what the model's attention has; of device and dtype each call decides."""
    name, watch = subject.base.batch_plan.kernel, Watch()
    if name == "auto":
        return
    subject.stock(subject.tokens(1, max(LENGTHS)), watch)
    documents = Documents((max(LENGTHS),), subject.device)
    for module, options, _ in watch.calls:
        needs = Needs("any", "any", **features(AttentionCall.of(module, documents, options)))
        if lacking := lacks_feature(name, needs):
            able = [kernel for kernel in KERNELS if lacks_feature(kernel, needs) is None]
            raise SurgeryError(f"flash_attention kernel {name!r} has {lacking}: use {' or '.join(able)}")


def rows_equal_stock(subject: Subject) -> None:
    """Computed by document, padded rows equal those of the stock code at real tokens."""
    ids, mask = _padded(subject)
    ours, stock = (call(ids, attention_mask=mask) for call in (subject.hidden, subject.stock))
    real = mask.bool()
    same(ours[real], stock[real], "padded rows, computed by document, aren't those of the stock code")


def documents_equal_rows(subject: Subject) -> None:
    """A packed document equals the document alone in its row."""
    rows = [subject.tokens(1, length) for length in LENGTHS]
    numbers = torch.arange(1, len(LENGTHS) + 1).repeat_interleave(torch.tensor(LENGTHS))[None]
    packed = subject.hidden(torch.cat(rows, dim=1), document_ids=numbers.to(subject.device))
    alone = torch.cat([subject.stock(row) for row in rows], dim=1)
    same(packed, alone, "packed documents aren't what each of them is alone")


def documents_are_apart(subject: Subject) -> None:
    """No document changes with another one; what lies in front of them is the anchor."""
    first, second = LENGTHS[:2]
    ids = subject.tokens(1, 1 + first + second).repeat(2, 1)
    ids[1, 1 : 1 + first] = subject.draw.others(ids[0, 1 : 1 + first].cpu()).to(ids.device)
    numbers = torch.tensor([0, *[1] * first, *[2] * second], device=ids.device).expand_as(ids)
    one, other = subject.hidden(ids, document_ids=numbers)[:, 1 + first :]
    same(other, one, "documents reach each other", EXACT)


def _padded(subject: Subject) -> tuple[Tensor, Tensor]:
    """Rows of `LENGTHS`, the last one padded on its left side, and their mask, both (rows, longest)."""
    pad = getattr(subject.base.config, "pad_token_id", None)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long, device=subject.device)
    for row, length in enumerate(LENGTHS[:-1]):
        mask[row, :length] = 1
    mask[-1, -LENGTHS[-1] :] = 1
    ids = subject.tokens(*mask.shape)
    return ids.masked_fill(mask == 0, pad if isinstance(pad, int) and pad >= 0 else 0), mask


def same(found: Tensor, expected: Tensor, otherwise: str, epsilons: float = ROUNDED) -> None:
    """Raise unless two hidden states are equal to rounding, by the root mean square of the difference."""
    error = float((found.double() - expected.double()).norm() / expected.double().norm())
    # Stock eager attention has its softmax in float32, in a float64 model, too.
    epsilon = max(torch.finfo(expected.dtype).eps, torch.finfo(torch.float32).eps)
    if not error <= (limit := min(epsilons * epsilon, 0.05)):
        raise SurgeryError(f"{otherwise}: a relative difference of {error:.1e}, beyond {limit:.0e}")
