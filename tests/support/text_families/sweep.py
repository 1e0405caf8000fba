"""Each technique on each text family of transformers: equal to stock, or refused with a reason."""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cadenza import algorithms
from cadenza.surgery import SurgeryError
from text_families import FAMILIES, build, has_classifier

TECHNIQUES = (
    *("unpadding", "flash_attention", "sequence_packing", "anchor_attention", "alibi", "sliding_window"),
    *("bf16_safe_rope", "drop_rope", "low_precision_norm"),
)
OPTIONS = {"sliding_window": {"window": 2}}
LENGTHS = (9, 24, 5, 17)
EQUAL = "equal"
REASONS = {  # in the table: in the message
    "interface": "whose attention is on transformers' interface",
    "outside": "tokens reach each other outside of attention|documents reach each other",
    "option": "passes .* to attention",
    "mask": "isn't that of attention|mask that the model made itself|ignores it",
    "positions": "aren't those of the stock code|aren't what each|positions remain|nor rotary embeddings",
    "window": "sliding window of",
    "not causal": "is not causal",
    "rope type": "has rope type",
    "layers": (
        "isn't on transformers' attention|gets no documents|can't be called|cross-attention|consists of|"
        "not a pooler of the first token|from no pooler|its head makes|doesn't know the output"
    ),
    "rotation": "rotary positions in its own way|doesn't return cos|one integer position",
    "nothing": "found nothing to change",
}
HOW = """# Techniques on the text families of transformers

Printed by `make families`, and compared by a test, on small random models with all that is special to a
family switched on. `equal`: the outputs and their gradients are those of the stock model; with `alibi` no
position is left and the bias is there; with `drop_rope` none is left but causality; with `sliding_window`
what is far away has no effect; with `sequence_packing` a classifier of the family, if it has one, also gives
each document what it gives it alone. Else the technique is refused when it is applied, and the model stays as
it was. What the words mean:

| word | why |
|---|---|
| interface | attention isn't on transformers' attention interface, or it is an encoder-decoder |
| outside | tokens reach each other outside of attention: by convolution, recurrence, neighbours as input |
| option | attention gets what no kernel by document knows, such as a position bias |
| mask | the mask hides other keys than causality and a window do, or the model makes it itself |
| positions | the model counts positions itself, or has positions that the technique can't remove |
| window | a sliding window hides the anchor |
| not causal | the technique is for decoders |
| rope type | rotary frequencies follow the longest position in a batch |
| layers | a layer, pooler or head that doesn't follow: documents aren't handed on, several models in one |
| rotation | rotary positions enter in another way than by cos and sin of one position a token |
| nothing | the model has nothing that the technique changes |

A family that isn't here, or another config, proves a technique when it is applied.
"""


def cell(name: str, technique: str) -> str:
    """`equal`, or a key of `REASONS`; raises if the outputs are wrong, or no reason fits."""
    model = build(name)
    try:
        getattr(algorithms, f"apply_{technique}")(model, **OPTIONS.get(technique, {}))
    except SurgeryError as error:
        found = [word for word, pattern in REASONS.items() if re.search(pattern, str(error))]
        return found[0] if found else f"{name}: {technique}: {error}"
    CHECKS[technique](model, build(name))
    if technique == "sequence_packing" and has_classifier(name):
        outputs_of_documents_equal(name)
    return EQUAL


def table() -> str:
    """The document: a row for each family."""
    lines = [f"| family | {' | '.join(TECHNIQUES)} |", "|---" * (len(TECHNIQUES) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(cell(name, each) for each in TECHNIQUES)} |" for name in sorted(FAMILIES)
    ]
    return HOW + "\n" + "\n".join(lines) + "\n"


def rows_equal(model: Any, stock: Any) -> None:
    ids, mask = padded(model)
    real = mask.bool()
    both = [with_gradient(m, lambda m: logits(m, ids, attention_mask=mask)[real]) for m in (model, stock)]
    assert_close(*both)
    if "labels" in inspect.signature(stock.forward).parameters:
        losses_equal(model, stock, ids, mask)


def losses_equal(model: Any, stock: Any, ids: Tensor, mask: Tensor) -> None:
    """With a label at each token, padding included."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the stock code computes it
        try:
            expected = stock(input_ids=ids, attention_mask=mask, labels=ids).loss
        except (IndexError, TypeError, ValueError, RuntimeError):
            return  # the stock model has no loss for them
        found = model(input_ids=ids, attention_mask=mask, labels=ids).loss
    assert abs(found - expected) < 1e-4 * max(1, abs(expected))


def outputs_equal(model: Any, stock: Any) -> None:
    """In both precisions; autocast rounds elsewhere."""
    ids, mask = padded(model)
    real = mask.bool()
    with torch.no_grad():
        ours, theirs = (logits(m, ids, attention_mask=mask)[real] for m in (model, stock))
        assert relative(ours, theirs) < 1e-4
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                low = [logits(m, ids, attention_mask=mask)[real].float() for m in (model, stock)]
            except RuntimeError:
                with pytest.raises(RuntimeError):
                    logits(stock, ids, attention_mask=mask)
                return  # the stock model doesn't run under autocast
    ours, stocks = ((x - theirs).norm(dim=-1).median() for x in low)  # a router may send some elsewhere
    assert ours < 2 * stocks + 0.01 * theirs.norm(dim=-1).median()


def documents_equal(model: Any, stock: Any, axis: int = 1) -> None:
    rows = [tokens(1, length, seed=length) for length in LENGTHS]
    numbers = torch.arange(1, 5).repeat_interleave(torch.tensor(LENGTHS))[None]
    ours = with_gradient(model, lambda m: logits(m, torch.cat(rows, 1), document_ids=numbers))
    theirs = with_gradient(stock, lambda m: torch.cat([logits(m, row) for row in rows], axis))
    assert_close(ours, theirs)


def outputs_of_documents_equal(name: str) -> None:
    """A classifier's output of each document, and its gradient."""
    model, stock = (build(name, classifies=True, num_labels=3) for _ in range(2))
    algorithms.apply_sequence_packing(model)
    documents_equal(model, stock, axis=0)


def documents_apart(model: Any, stock: Any) -> None:
    """The window is that of a dense mask; without documents all is stock."""
    ids, numbers = tokens(1, 24), torch.tensor([[0] + [1] * 9 + [2] * 14])
    other = ids.clone()
    other[0, 1:10] = tokens(9, seed=7)
    with torch.no_grad():
        assert relative(logits(model, ids), logits(stock, ids)) < 1e-4
        one, two = (logits(model, x, document_ids=numbers)[:, 10:] for x in (ids, other))
        alone = logits(model, torch.cat([ids[:, :1], ids[:, 10:]], 1))[:, 1:]
    assert relative(one, two) < 1e-5
    assert one.isfinite().all()
    assert alone.shape == one.shape


def biased(model: Any, stock: Any) -> None:
    """Shifted by padding a row computes the same; in another order it doesn't."""
    ids, order = tokens(1, 12), torch.tensor([3, 0, 7, 1, 11, 2, 9, 4, 10, 5, 8, 6])
    shifted = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], 1)
    mask = torch.tensor([[0] * 5 + [1] * 12])
    with torch.no_grad():
        there = logits(model, ids)
        assert relative(logits(model, ids[:, order])[:, order.argsort()], there) > 1e-3, "a bag of words"
        assert relative(logits(model, shifted, attention_mask=mask)[:, 5:], there) < 1e-4


def without_positions(model: Any, stock: Any) -> None:
    """No `position_ids` and no padding in front matter; earlier tokens do."""
    ids = tokens(1, 12)
    far = {"attention_mask": torch.ones_like(ids), "position_ids": 1009 * torch.arange(12).flip(0)[None]}
    shifted = torch.cat([torch.zeros(1, 5, dtype=torch.long), ids], 1)
    mask = torch.tensor([[0] * 5 + [1] * 12])
    with torch.no_grad():
        there = logits(model, ids)
        assert relative(logits(stock, ids), there) > 1e-3
        assert relative(logits(model, shifted, attention_mask=mask)[:, 5:], there) < 1e-4
        assert relative(logits(model, ids.flip(1))[:, -1], there[:, -1]) > 1e-3, "causality is left"
        if "position_ids" in inspect.signature(model.forward).parameters:
            assert relative(logits(model, ids, **far), there) < 1e-5


def windowed(model: Any, stock: Any) -> None:
    """A change is seen a window further in each layer, and no further."""
    ids, calls = tokens(1, 48), []
    for module in model.modules():
        if "attention_plan" in vars(module):  # some models call a layer several times
            module.register_forward_hook(lambda *_: calls.append(1))
    logits(model, ids)
    reach = 2 * len(calls)
    other = ids.clone()
    other[0, 0] = 5 + (int(ids[0, 0]) - 4) % 80
    with torch.no_grad():
        changed = (logits(model, ids) - logits(model, other)).abs().amax(-1)[0] > 1e-6
        far = (logits(stock, ids) - logits(stock, other)).abs().amax(-1)[0] > 1e-6
    assert bool(changed[: reach + 1].any())
    assert not bool(changed[reach + 1 :].any())
    assert far.shape == changed.shape


CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "unpadding": rows_equal,
    "flash_attention": rows_equal,
    "sequence_packing": documents_equal,
    "anchor_attention": documents_apart,
    "alibi": biased,
    "sliding_window": windowed,
    "bf16_safe_rope": rows_equal,
    "drop_rope": without_positions,
    "low_precision_norm": outputs_equal,
}


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 85, shape, generator=torch.Generator().manual_seed(seed))


def padded(model: Any) -> tuple[Tensor, Tensor]:
    """Rows of `LENGTHS`, the last one padded on its left side."""
    pad = getattr(model.config, "pad_token_id", None)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    mask[-1] = mask[-1].flip(0)
    return tokens(*mask.shape).masked_fill(mask == 0, pad if isinstance(pad, int) and pad >= 0 else 0), mask


def logits(model: Any, ids: Tensor, **inputs: Any) -> Tensor:
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    return model(input_ids=ids, **inputs)[0]


def with_gradient(model: Any, call: Callable[[Any], Tensor]) -> tuple[Tensor, Tensor]:
    """The output of a call, and a gradient of it that passes every layer."""
    output = call(model)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights).sum().backward()
    return output.detach(), model.get_input_embeddings().weight.grad


def assert_close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    assert relative(ours[0], theirs[0]) < 1e-4
    if theirs[1].isfinite().all():  # the stock gradient of Gemma 3n's equal numbers is NaN
        assert relative(ours[1], theirs[1]) < 1e-3


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
