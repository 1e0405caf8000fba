"""A plot of the lengths of documents."""

from pathlib import Path

import numpy as np

from cadenza.data.survey.facts import Facts

BINS = 40


def draw(facts: Facts, name: str, path: Path) -> None:
    """Draw how many documents have how many tokens, and how many tokens stand in documents up to a length."""
    from matplotlib.figure import Figure  # no window: a server has none

    lengths = facts.lengths[facts.lengths > 0]
    bins = np.unique(np.geomspace(1, max(lengths.max(initial=1) + 1, 2), BINS).round())
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    axes.hist(lengths, bins=bins.tolist(), color="tab:blue", label="documents")
    axes.set(xscale="log", xlabel="tokens of a document", ylabel="documents", title=name)
    axes.axvline(facts.capacity, color="black", linestyle="--", label=f"max_seq_len {facts.capacity}")
    ordered = np.sort(lengths)
    share = axes.twinx()
    share.plot(ordered, 100 * ordered.cumsum() / max(ordered.sum(), 1), color="tab:orange")
    share.set(ylabel="% of all tokens, up to this length", ylim=(0, 101))
    axes.legend(loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
