"""What the rows of the study say, by window and by prompt, so that formats and settings can be paired."""

import json
from collections.abc import Sequence
from statistics import fmean

from cadenza.studies.ptq_sweep.measures.generated import MEASURES
from cadenza.studies.ptq_sweep.measures.prediction import OF_WINDOWS
from cadenza.studies.ptq_sweep.settings import PLAIN
from cadenza.studies.report import Row

Unit = tuple[str, str, int]  # a model, a text, and the number of a window or a prompt in it
Values = dict[Unit, float]
FOUR_BIT = 6.0  # bits a weight, statistics included: less is a 4-bit format


class Results:
    """The measures of all models.

    Args:
        families: model -> its family, the `model_type` of its config.
        prediction, generation, speed: rows as the CSV files hold them, whose values are texts.
    """

    def __init__(
        self, families: dict[str, str], prediction: list[Row], generation: list[Row], speed: list[Row]
    ) -> None:
        self.families = families
        self.prediction = {(r["model"], r["format"], r["text"]): _read(r, OF_WINDOWS) for r in prediction}
        self.generation = [(_setting(r), _read(r, MEASURES)) for r in generation]
        names = "prefill", "decode", "plain_prefill", "plain_decode"
        self.speed = {(r["model"], r["format"], int(r["batch"])): _read(r, names) for r in speed}

    @property
    def models(self) -> list[str]:
        """In the order of the settings."""
        return list(self.families)

    @property
    def texts(self) -> list[str]:
        """In the order of the settings."""
        return list(dict.fromkeys(text for *_, text in self.prediction))

    def formats(self, models: Sequence[str]) -> list[str]:
        """The quantized formats that all of `models` have."""
        held = [{form for model, form, _ in self.prediction if model == one} for one in models]
        every = dict.fromkeys(form for _, form, _ in self.prediction)
        return [f for f in every if f != PLAIN and all(f in each for each in held)]

    def bits(self, model: str, form: str) -> float:
        """Bits a weight of the quantized layers, statistics included."""
        return next(float(r["bits"]) for (m, f, _), r in self.prediction.items() if (m, f) == (model, form))

    def four_bit(self, models: Sequence[str]) -> list[str]:
        """The formats of all of `models` with about 4 bits a weight."""
        return [form for form in self.formats(models) if self.bits(models[0], form) < FOUR_BIT]

    def settings(self, name: str) -> list[float]:
        """The values of `temperature`, `top_k` or `max_new_tokens`, ascending."""
        return sorted({setting[name] for setting, _ in self.generation})

    def predicted(
        self, models: Sequence[str], form: str, measure: str, texts: Sequence[str] | None = None
    ) -> Values:
        """A measure of each window."""
        return {
            (model, text, index): value
            for (model, format, text), row in self.prediction.items()
            if format == form and model in models and (texts is None or text in texts)
            for index, value in enumerate(row[measure])
        }

    def generated(self, models: Sequence[str], form: str, measure: str, **setting: float) -> Values:
        """A measure of each prompt: the mean over seeds and over what `setting` leaves open."""
        found: dict[Unit, list[float]] = {}
        for keys, row in self.generation:
            wanted = keys["format"] == form and keys["model"] in models
            if wanted and all(keys[name] == value for name, value in setting.items()):
                for index, value in enumerate(row[measure]):
                    found.setdefault((keys["model"], keys["text"], index), []).append(value)
        return {unit: fmean(values) for unit, values in found.items()}


def minus(first: Values, second: Values) -> Values:
    """The differences of what both have."""
    return {unit: value - second[unit] for unit, value in first.items() if unit in second}


def mean_of(each: Sequence[Values]) -> Values:
    """The mean over several formats, of what all have."""
    shared = set.intersection(*(set(values) for values in each))
    return {unit: fmean(values[unit] for values in each) for unit in each[0] if unit in shared}


def _read(row: Row, names: Sequence[str]) -> Row:
    more = ("kl_percentiles",) if "kl_percentiles" in row else ()
    return {**row, **{name: json.loads(row[name]) for name in (*names, *more)}}


def _setting(row: Row) -> Row:
    numbers = {name: float(row[name]) for name in ("temperature", "top_k", "max_new_tokens")}
    return {"model": row["model"], "format": row["format"], "text": row["text"], **numbers}
