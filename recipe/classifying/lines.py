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
    return (
        f"accuracy {scores['accuracy']:.1%} ± {_half_width(scores):.1%} (95 %, of {scores['examples']:,} "
        f"examples; the most frequent class is {scores['most_frequent']:.1%}), {rest}, "
        f"cross-entropy {_shown(scores['loss'])} nats"
    )


def _half_width(scores: dict[str, Any]) -> float:
    """Half of the 95 % interval of an accuracy, by the normal approximation of the binomial distribution."""
    share = scores["accuracy"]
    return 1.96 * math.sqrt(share * (1 - share) / scores["examples"])


def _shown(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
