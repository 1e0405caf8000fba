"""exposure weights against plain Python in float64, and what they sum to."""

import math
import random

import pytest
import torch

from cadenza.losses.exposure import effective_context, exposure_weights

IGNORED = -100


def plain_weights(context, labels, threshold, extra, largest=math.inf):
    """One row, target by target."""
    targets = [i for i, label in enumerate(labels) if label != IGNORED]
    buckets = {}
    for i in targets:
        if context[i] >= threshold:
            bucket = 0
            while threshold * 2 ** (bucket + 1) <= context[i]:
                bucket += 1
            buckets.setdefault(bucket, []).append(i)
    weights = [float(label != IGNORED) for label in labels]
    for members in buckets.values():
        for i in members:
            weights[i] += min(extra * len(targets) / len(buckets) / len(members), largest)
    return weights


def rows(seed, length=90, count=4):
    """Documents of random lengths, contexts counted by hand, and labels of which some are missing."""
    draw = random.Random(seed)
    documents, context, labels = [], [], []
    for _ in range(count):
        ids, before = [], []
        while len(ids) < length:
            size = draw.choice([1, 2, 7, 40, 80])
            ids += [max(ids, default=0) + 1] * size
            before += range(size)
        documents.append(ids[:length])
        context.append(before[:length])
        labels.append([draw.choice([5, 6, 7, IGNORED]) for _ in range(length)])
    return [torch.tensor(x) for x in (documents, context, labels)]


@pytest.mark.parametrize("seed", range(5))
def test_the_context_is_what_stands_before_a_token_in_its_document(seed):
    documents, context, _ = rows(seed)
    assert torch.equal(effective_context(documents), context)


def test_padding_and_an_anchor_are_no_context():
    documents = torch.tensor([[0, 1, 1, 2, 2, -1, -1], [-1, -1, 1, 1, 1, 1, 2]])
    expected = torch.tensor([[0, 0, 1, 0, 1, 0, 1], [0, 1, 0, 1, 2, 3, 0]])
    assert torch.equal(effective_context(documents), expected)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("threshold", "extra", "largest"), [(1, 0.5, None), (3, 2.0, None), (7, 0.5, 1.5), (16, 0.1, 0.01)]
)
def test_weights_equal_plain_python(seed, threshold, extra, largest):
    _, context, labels = rows(seed)
    found = exposure_weights(context, labels != IGNORED, threshold, extra, largest)
    limit = math.inf if largest is None else largest
    expected = [
        plain_weights(c, ids, threshold, extra, limit)
        for c, ids in zip(context.tolist(), labels.tolist(), strict=True)
    ]
    assert torch.allclose(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6)


def test_long_targets_share_a_fixed_weight_and_buckets_the_same_part():
    context = torch.arange(100)[None]
    weights = exposure_weights(context, context >= 0, 10, 0.5)[0]
    assert weights.sum().item() == pytest.approx(150, rel=1e-6)
    assert torch.equal(weights[:10], torch.ones(10))
    parts = [(weights[a:b] - 1).sum().item() for a, b in ((10, 20), (20, 40), (40, 80), (80, 100))]
    assert parts == pytest.approx([12.5] * 4, rel=1e-5)


def test_without_a_long_target_all_weigh_one():
    _, context, labels = rows(0)
    labelled = labels != IGNORED
    weights = exposure_weights(context, labelled, 1000, 0.5)
    assert torch.equal(weights, labelled.float())
    assert torch.equal(exposure_weights(context, labelled, 1, 0.0), weights), "as with nothing to share"
    none = torch.zeros_like(labelled)
    assert torch.equal(exposure_weights(context, none, 1, 0.5), torch.zeros(labels.shape))


def test_a_row_weighs_the_same_in_any_batch():
    _, context, labels = rows(3)
    whole = exposure_weights(context, labels != IGNORED, 3, 0.5)
    pairs = zip(context.split(1), labels.split(1), strict=True)
    alone = [exposure_weights(one, other != IGNORED, 3, 0.5) for one, other in pairs]
    assert torch.equal(whole, torch.cat(alone))


def test_bounds_of_buckets_are_exact_far_away():
    near = [4096 * 2**k + step for k in range(18) for step in (-1, 0)]
    context = torch.tensor([near])
    found = exposure_weights(context, context >= 0, 4096, 0.5)
    expected = plain_weights(near, [1] * len(near), 4096, 0.5)
    assert torch.allclose(found[0].double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6)
