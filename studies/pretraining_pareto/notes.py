"""What a reader of the tables must know of the runs: in a line each."""

from collections.abc import Sequence

from cadenza.studies.pretraining_pareto.runs import Run


def of_runs(runs: Sequence[Run], priced: bool) -> list[str]:
    """The notes on runs whose numbers lack something, or mean something else than those of others."""
    return [*_unended(runs, priced), *_other_devices(runs), *_unknown_flops(runs), *_continued(runs)]


def _unended(runs: Sequence[Run], priced: bool) -> list[str]:
    cost = ", and what it costs" if priced else ""
    said = f"hasn't ended: it has the points so far, and its devices{cost} aren't known"
    return [f"{run.name} {said}." for run in runs if run.device is None]


def _other_devices(runs: Sequence[Run]) -> list[str]:
    found = dict.fromkeys(run.devices for run in runs if run.devices)
    if len(found) < 2:
        return []
    return [f"Hours are of different devices ({', '.join(found)}): compare tokens and FLOPs, or the price."]


def _unknown_flops(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs if run.spent[run.last].flops is None]
    return [f"FLOPs aren't known of {', '.join(names)}, which their panel leaves out."] if names else []


def _continued(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.name} started from trained weights ({start}): what those took isn't counted."
        for run in runs
        if (start := run.recipe["model"].get("pretrained") or _loaded(run))
    ]


def _loaded(run: Run) -> str | None:
    train = run.recipe.get("train", {})
    return train.get("load_path") if train.get("load_weights_only") else None
