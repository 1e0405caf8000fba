"""Who sees whom, in each of the forms that kernels take, on every small case against plain loops."""

from itertools import product

import pytest
import torch

from cadenza.attention.call import AttentionCall, visible
from cadenza.attention.documents import Documents
from cadenza.attention.kernels import flash, flex, sdpa

CPU = torch.device("cpu")
TOTAL = 6
SEEN = list(product((False, True), (None, 1, 2, 4)))  # causal, window


def compositions(total):
    """Every way to cut `total` tokens into documents."""
    if total == 0:
        return [()]
    return [(first, *rest) for first in range(1, total + 1) for rest in compositions(total - first)]


LENGTHS = [lengths for total in range(1, TOTAL + 1) for lengths in compositions(total)]


def anchors_of(lengths):
    """Every way to choose anchors among the documents of one token: the first is one, others may be."""
    if lengths[0] != 1:
        return
    later = [n for n, length in enumerate(lengths) if n and length == 1]
    for chosen in product((False, True), repeat=len(later)):
        anchors = {0, *(n for n, taken in zip(later, chosen, strict=True) if taken)}
        yield tuple(max(a for a in anchors if a <= n) for n in range(len(lengths)))


def calls():
    """Every call on at most TOTAL tokens."""
    for lengths in LENGTHS:
        for causal, window in SEEN:
            yield call_of(lengths, (), causal, window)
        for anchors in anchors_of(lengths):
            yield call_of(lengths, anchors, True, None)  # an anchor comes with causal models, without window


def call_of(lengths, anchors, causal, window):
    return AttentionCall(None, None, Documents(lengths, CPU, anchors=anchors), causal, window, 0.0, None)


def plain(call):
    """The set of (q, k) that may see, by loops over documents and distances."""
    lengths, anchors = call.documents.lengths, call.documents.anchors
    document = [n for n, length in enumerate(lengths) for _ in range(length)]
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    seen = set()
    for q, k in product(range(len(document)), repeat=2):
        own = document[q] == document[k]
        if anchors and k == starts[anchors[document[q]]]:
            own = True
        if call.causal and k > q:
            continue
        if call.window is not None and abs(q - k) >= call.window:
            continue
        if own:
            seen.add((q, k))
    return seen


def pairs(mask):
    return {(int(q), int(k)) for q, k in mask.nonzero()}


def test_there_are_as_many_cases_as_thought():
    every = list(calls())
    assert len(LENGTHS) == 63
    assert len(every) == 63 * 8 + sum(len(list(anchors_of(lengths))) for lengths in LENGTHS)
    assert sum(bool(call.documents.anchors) for call in every) > 60


def test_visible_is_what_loops_say():
    for call in calls():
        at = torch.arange(call.documents.total)
        assert pairs(call.visible(at[:, None], at[None, :])) == plain(call), call


def test_one_place_is_enough_to_ask_of():
    """FlexAttention asks with single places."""
    call = call_of((1, 2, 3), (0, 0, 0), True, None)
    one = {(q, k) for q, k in product(range(6), repeat=2) if call.visible(torch.tensor(q), torch.tensor(k))}
    assert one == plain(call)


@pytest.mark.parametrize(("causal", "window"), SEEN)
def test_a_document_alone_is_the_corner_of_any_other(causal, window):
    for length in range(1, TOTAL + 1):
        call = call_of((length,), (), causal, window)
        assert pairs(call.within(length, CPU)) == plain(call)
        at = torch.arange(length)
        assert torch.equal(
            call.within(length, CPU), visible(at[:, None], at[None, :], causal=causal, window=window)
        )


def test_dense_masks_of_documents():
    """What the model's own kernel adds to the scores, for each length of document."""
    from types import SimpleNamespace

    module = SimpleNamespace(attention_plan=SimpleNamespace(stock="eager"))
    for call in calls():
        if call.documents.anchors:
            continue  # a copy of the anchor stands in front: a plain causal document
        object.__setattr__(call, "module", module)
        for length in set(call.documents.lengths):
            x = torch.zeros(1, 2, length, 4)
            added = sdpa._additive(call, x, x)
            seen = torch.ones(length, length, dtype=torch.bool) if added is None else added[0, 0] == 0
            alone = call_of((length,), (), call.causal, call.window)
            assert pairs(seen) == plain(alone), (call, length)


def by_flash(call):
    """What flash-attn's arguments mean, by loops (its documentation of causal and window_size)."""
    given, seen = flash.arguments(call), set()
    starts, key_starts = given["cu_seqlens_q"], given["cu_seqlens_k"]
    for start, end, key_start, key_end in zip(
        starts[:-1], starts[1:], key_starts[:-1], key_starts[1:], strict=True
    ):
        n, m = int(end - start), int(key_end - key_start)
        assert n <= given["max_seqlen_q"]
        assert m <= given["max_seqlen_k"]
        for i, j in product(range(n), range(m)):
            off = j - (i + m - n)
            left, right = given["window_size"]
            if (left >= 0 and off < -left) or (right >= 0 and off > right) or (given["causal"] and off > 0):
                continue
            key = int(key_start) + j
            if call.documents.anchors:
                key = int(call.documents.anchored_keys[key])
                copied = key - call.documents.total  # whose copy of the anchor it is
                key = key if copied < 0 else int(call.documents.anchor_tokens[copied])
            seen.add((int(start) + i, key))
    return seen


def test_flash_attn_is_told_the_same():
    for call in calls():
        assert by_flash(call) == plain(call), call


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_blocks_that_are_computed_are_those_in_which_something_is_seen(block, monkeypatch):
    monkeypatch.setattr(flex, "BLOCK", block)
    for call in calls():
        needed = {(q // block, k // block) for q, k in plain(call)}
        found = pairs(flex.live_blocks(call))
        assert needed <= found, f"a block of {call} would be skipped"
        if call.window is None or len(call.documents.lengths) == 1:
            assert found == needed, call


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_blocks_without_a_mask_are_those_in_which_everything_is_seen(block, monkeypatch):
    monkeypatch.setattr(flex, "BLOCK", block)
    some = 0
    for call in calls():
        seen, total = plain(call), call.documents.total
        sees_all = {
            (row, column)
            for row, column in product(range(total // block), repeat=2)
            if all((row * block + i, column * block + j) in seen for i, j in product(range(block), repeat=2))
        }
        found = pairs(flex.full_blocks(call))
        assert found <= sees_all, f"a block of {call} would be computed without its mask"
        if not call.documents.anchors:
            assert found == sees_all, call
        some += len(found)
    assert some
