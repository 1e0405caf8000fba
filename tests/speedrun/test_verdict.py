"""The verdict: the loss rule and the time rule, against numbers worked out by hand."""

import math
import statistics

import pytest
from verdict import judged, paired

from cadenza.studies.checks import StudyError

T = 4.302653  # Student's t of 2 degrees of freedom at 97.5 %


def rows(seconds, losses=(4.0, 4.1, 4.2), digest="d"):
    return [
        {
            "seed": seed,
            "seconds": str(time),
            "cpu_seconds": str(2 * time),
            "loss": str(loss),
            "digest": digest,
        }
        for seed, (time, loss) in enumerate(zip(seconds, losses, strict=True))
    ]


def test_the_ratio_is_paired_and_geometric():
    new, old = (50.0, 110.0, 60.0), (100.0, 200.0, 130.0)
    logs = [math.log(a / b) for a, b in zip(new, old, strict=True)]
    half = T * statistics.stdev(logs) / math.sqrt(3)
    found = paired(rows(new), rows(old), "seconds")
    assert found.mean == pytest.approx((0.5 * 0.55 * (60 / 130)) ** (1 / 3))
    assert (found.low, found.high) == pytest.approx(
        (math.exp(statistics.fmean(logs) - half), math.exp(statistics.fmean(logs) + half)), rel=1e-6
    )


@pytest.mark.parametrize(
    ("new", "losses", "name"),
    [
        ((90.0, 180.0, 117.5), (4.0, 4.1, 4.2), "record"),
        ((90.0, 220.0, 117.5), (4.0, 4.1, 4.2), "not significant"),
        ((110.0, 221.0, 142.5), (4.0, 4.1, 4.2), "slower"),
        ((90.0, 180.0, 117.5), (4.0, 4.1, 4.3), "loss missed"),
    ],
)
def test_verdicts(new, losses, name):
    """The target is the mean of the first losses: equal is reached, and one seed may be above."""
    found = judged(rows(new, losses), rows((100.0, 200.0, 130.0)), target=statistics.fmean((4.0, 4.1, 4.2)))
    assert found.name == name
    assert found.is_record == (name == "record")
    assert found.cpu_ratio.mean == pytest.approx(found.ratio.mean)


def test_the_first_record_needs_its_loss_alone():
    assert judged(rows((1.0, 2.0, 3.0)), [], 4.2).name == "first record"
    assert judged(rows((1.0, 2.0, 3.0)), [], 4.0).name == "loss missed"


def test_what_cannot_be_judged():
    with pytest.raises(StudyError, match="a record takes 3 at least"):
        judged(rows((1.0, 2.0), (4.0, 4.0)), [], 5.0)
    with pytest.raises(StudyError, match=r"digests differ \(d, e\)"):
        judged(rows((1.0, 2.0, 3.0)), rows((1.0, 2.0, 3.0), digest="e"), 5.0)
    other = [{**row, "seed": row["seed"] + 1} for row in rows((1.0, 2.0, 3.0))]
    with pytest.raises(StudyError, match="other seeds"):
        judged(rows((1.0, 2.0, 3.0)), other, 5.0)
