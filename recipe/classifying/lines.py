"""The results of a text classifier, in lines for the screen."""

import math
from typing import Any

NAMES = {"f1": "F1", "mcc": "MCC", "spearman": "Spearman", "pearson": "Pearson"}


def summary(results: dict[str, Any]) -> str:
    """A line about training, and one about each evaluation."""
    train = results["train"]
    first = (
        f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
        f"{train['examples_per_second']:,.0f} examples/s"
    )
    others = (f"eval, {name}: {_scores(scores)}" for name, scores in results["others"].items())
    return "\n".join([first, f"eval: {_scores(results['eval'])}", *others])


def _scores(scores: dict[str, Any]) -> str:
    rest = ", ".join(f"{NAMES[key]} {_shown(scores[key])}" for key in NAMES if key in scores)
    if "accuracy" not in scores:
        return f"{rest}, mean squared error {_shown(scores['loss'])}, of {scores['examples']:,} examples"
    low, high = interval(scores["accuracy"], scores["examples"])
    return (
        f"accuracy {scores['accuracy']:.1%} (95 % interval {low:.1%} to {high:.1%}, {scores['examples']:,} "
        f"examples, {scores['most_frequent']:.1%} of the most frequent class), {rest}, "
        f"cross-entropy {_shown(scores['loss'])} nats"
    )


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a `share` of `count` examples (Wilson 1927)."""
    z = 1.96
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    whole = 1 + z * z / count
    return max((middle - half) / whole, 0.0), min((middle + half) / whole, 1.0)


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
