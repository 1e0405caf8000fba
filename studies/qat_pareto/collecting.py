"""Finished runs of other machines: which points they are, and what they scored."""

import json
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from cadenza.recipe import RecipeError, load
from cadenza.recipe.record import FILE as RECORD
from cadenza.recipe.runs.kept_recipe import FILE as RECIPE
from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto import recipes
from cadenza.studies.qat_pareto.plan import Plan
from cadenza.studies.qat_pareto.points import Kind, Point
from cadenza.studies.qat_pareto.settings import BASE, BITS, PLAIN, TECHNIQUE
from cadenza.studies.report import Row


@dataclass(frozen=True)
class Finished:
    """A run that came to its end: its folder, its recipe, and its scores as `scores_of` gives them."""

    folder: Path
    recipe: Any
    scores: Row


def collect(plan: Plan) -> dict[Point, Finished]:
    """The points of the plan that `runs` holds; those outside of it are left out, and named.

    Raises:
        StudyError: no run, one that hasn't ended, one by another recipe, or two of a point that disagree.
    """
    found: dict[Point, Finished] = {}
    wanted, others = set(plan.points), []
    runs = sorted(map(read, folders(plan.cfg.runs)), key=lambda run: _bits(run) != PLAIN)
    for run in runs:  # those in full precision first, which others name as what they start from
        point = _point_of(plan, run, found)
        if point not in wanted:
            others.append(run.folder)
        elif point not in found:
            found[point] = run
        elif run.scores != found[point].scores:
            both = f"{found[point].folder} and {run.folder}"
            raise StudyError(f"runs: {both} are both {point.name}, and disagree; leave one of them out")
    if others:
        print(f"runs: {len(others)} are no points of these settings, such as {others[0]}")
    return found


def folders(patterns: list[str]) -> list[Path]:
    """The folders of runs that `patterns` name, each once.

    Raises:
        StudyError: a pattern names none.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        named = [Path(each) for each in sorted(glob(str(Path(pattern).expanduser())))]
        inside = [run for each in named for run in ([each] if _is_run(each) else sorted(each.glob("*/")))]
        runs = [each for each in inside if _is_run(each)]
        if not runs:
            raise StudyError(f"runs: {pattern} holds no run; name folders of runs, or the folder they are in")
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
    return list(found.values())


def read(folder: Path) -> Finished:
    """The run in `folder`.

    Raises:
        StudyError: it hasn't ended, or its record isn't one of an accuracy.
    """
    path = folder / RECORD
    if not path.is_file():
        raise StudyError(f"runs: {folder} hasn't ended, it has no {RECORD}; let it end, or leave it out")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Finished(folder, _recipe(record["recipe"]), scores_of(record))
    except (OSError, ValueError, KeyError, TypeError, RecipeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(
            f"runs: {path} isn't the record of a run whose accuracy can be read ({why})"
        ) from error


def scores_of(record: dict[str, Any]) -> Row:
    """The columns that a run's record gives: `accuracy`, `loss`, `train_accuracy`, `seconds`, `versions`.

    Accuracies lie between 0 and 1: of images top-1. A text's run has no `train_accuracy`.
    """
    evaluation, train = record["eval"], record["train"]
    versions = record.get("versions", {})
    place = (
        f"torch {versions.get('torch')}, {record.get('device', {}).get('kind')}, {record.get('precision')}"
    )
    return {
        "accuracy": evaluation["top1"] if "top1" in evaluation else evaluation["accuracy"],
        "loss": evaluation["loss"],
        "train_accuracy": train.get("top1"),
        "seconds": train["seconds"],
        "versions": place,
    }


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RECORD, RECIPE))


def _recipe(values: dict[str, Any]) -> Any:
    """The recipe of a record, with the defaults of keys that it lacks."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of keys without an effect, which the run itself named
        path = Path(folder) / RECIPE
        path.write_text(json.dumps(values), encoding="utf-8")
        return load([str(path)], [])


def _point_of(plan: Plan, run: Finished, known: Mapping[Point, Finished]) -> Point:
    """The point whose recipe the run has.

    Raises:
        StudyError: it differs from all variants in another key than those that the points differ in.
    """
    kind, seed = _kind(plan, run), run.recipe.seed
    wrong: dict[str, list[str]] = {}
    for variant in (BASE, *plan.cfg.variants):
        point = Point(kind._replace(variant=variant), seed)
        if not plan.cfg.variant(variant).has(kind.bits):
            continue
        wrong[variant] = _differences(plan, point, run, known)
        if not wrong[variant]:
            return point
    name, found = min(wrong.items(), key=lambda pair: len(pair[1]))
    than = "the settings'" if name == BASE else f"the variant {name}'s"
    raise StudyError(f"runs: {run.folder} has another recipe than {than}: {found[0]}")


def _differences(plan: Plan, point: Point, run: Finished, known: Mapping[Point, Finished]) -> list[str]:
    """Each key of the run's recipe that isn't as in the point's."""
    full = known[point.full].folder if point.full in known else plan.folder(point.full)
    theirs, ours = recipes.comparable(run.recipe, full), plan.comparable(point)
    return [
        f"{key}: {theirs.get(key, 'absent')}, here {ours.get(key, 'absent')}"
        for key in {**ours, **theirs}
        if theirs.get(key) != ours.get(key)
    ]


def _kind(plan: Plan, run: Finished) -> Kind:
    """Without its variant; where the settings name no depths or widths, the recipe's must be the same."""
    model, cfg = run.recipe.model, plan.cfg
    if (cfg.widths or cfg.model_types) and not hasattr(model, "width"):
        raise StudyError(f"runs: {run.folder} is a run of {model.objective}, which has no width")
    model_type = model.model_type if cfg.model_types else ""
    return Kind(model_type, model.width if cfg.widths else None, _bits(run))


def _bits(run: Finished) -> str:
    options = run.recipe.algorithms.get(TECHNIQUE)
    if options is None:
        return PLAIN
    weight, activation = (options.get(name, 4) for name in BITS)
    if weight is None or activation is None:
        raise StudyError(f"runs: {run.folder} quantizes weights or activations alone; points quantize both")
    return f"w{weight}a{activation}"
