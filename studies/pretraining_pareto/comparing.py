"""Whether the losses of runs can be compared: the same tokens of the same text, masked by the same rule."""

import json
from dataclasses import asdict
from typing import Any

from cadenza.data.text.config import TextConfig
from cadenza.data.text.tokenizer_config import TRAINED
from cadenza.studies.checks import StudyError
from cadenza.studies.pretraining_pareto.runs import Run

# Options of `data` that change nothing of an evaluation, and those that don't where `eval_source` is given.
OF_TRAINING = ("mlm_probability", "shuffle_buffer", "num_workers", "cache_dir", "stream", "local", "split")
OF_TRAINING += ("upsample_from", "upsample_times", "other_eval")
OF_SPLITS = ("source", "mixture", "subset", "eval_split", "eval_fraction", "remote")
RIGHT = "compare runs of one evaluation, or scores alone (--without-loss)"


def refuse_other_evaluation(runs: list[Run]) -> None:
    """Raise if a run was evaluated otherwise than the first one.

    Raises:
        StudyError: names both runs, and the first option that differs.
    """
    for run in runs[1:]:
        first, other = (evaluation(each) for each in (runs[0], run))
        if key := next((key for key in other if first.get(key) != other[key]), None):
            values = f"{key} is {first.get(key)!r} in {runs[0].folder}, but {other[key]!r} in {run.folder}"
            raise StudyError(f"the losses can't be compared: {values}; {RIGHT}")
        if not same_words(runs[0], run):
            pair = f"{runs[0].folder} and {run.folder} have other tokenizers"
            raise StudyError(f"the losses can't be compared: {pair}; {RIGHT}")


def evaluation(run: Run) -> dict[str, Any]:
    """The options that a run's evaluation depends on, by their dotted keys."""
    data = {**asdict(TextConfig()), **run.recipe.get("data", {})}
    unread = OF_SPLITS if data["eval_source"] is not None else ()
    names = ["eval_source", *sorted(data.keys() - {"eval_source", *OF_TRAINING})]  # what decides comes first
    read = {key: None if key in unread else data[key] for key in names}
    options = {f"data.{key}": value for key, value in read.items()}
    return {"model.objective": run.recipe["model"]["objective"], **options}


def same_words(one: Run, other: Run) -> bool:
    """Whether two runs have the same tokenizer: its file, or its options where a run hasn't ended."""
    files = [_tokenizer(run) for run in (one, other)]
    if None not in files:
        return files[0] == files[1]
    return _options(one) == _options(other)


def _tokenizer(run: Run) -> Any:
    """The tokenizer that a run keeps at its end, without what differs from call to call."""
    path = run.folder / "tokenizer" / "tokenizer.json"
    if run.device is None or not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("padding", "truncation")}


def _options(run: Run) -> dict[str, Any]:
    """The options of a tokenizer; of one that is trained, also the text."""
    section = {key: value for key, value in run.recipe.get("tokenizer", {}).items() if key != "cache_dir"}
    data = run.recipe.get("data", {})
    text = {key: data.get(key) for key in ("source", "mixture", "subset", "split")}
    return {**section, **(text if section.get("name") in TRAINED[1] else {})}
