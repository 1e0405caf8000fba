"""`metrics.jsonl`: a JSON object for each batch of training, and one for each evaluation."""

import json
import math
from pathlib import Path
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from cadenza.recipe.runs import flops, rows

NAMES = {
    **dict.fromkeys(("LanguageCrossEntropy", "CrossEntropy", "MeanSquaredError"), "loss"),
    **dict.fromkeys(("MaskedAccuracy", "MulticlassAccuracy"), "accuracy"),
    **dict.fromkeys(("F1OfSecond", "MulticlassF1Score"), "f1"),
    "MulticlassMatthewsCorrCoef": "mcc",
    "SpearmanCorrCoef": "spearman",
    "PearsonCorrCoef": "pearson",
}


class Metrics(Callback):
    """Writes a row for each batch and each evaluation, on the first rank.

    A resume goes on behind the row of the batch that it resumes after. `tokens`, `samples`, `seconds` and
    `flops` count from the start of training, over all devices, without evaluation. Rates are of one batch.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / rows.FILE
        self.file: Any = None
        self.early: list[dict[str, Any]] | None = []  # rows from before training, which opens the file
        self.flops: float | None = 0.0  # None: not known
        self.loaded = False
        self.matrices: int | None = None
        self.attention: int | None = None
        self.learning_rate = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"flops": self.flops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.flops, self.loaded = state["flops"], True

    def fit_start(self, state: State, logger: Logger) -> None:
        model: Any = getattr(state.model, "module", state.model)  # of DDP
        config = getattr(getattr(model, "model", None), "config", None)
        self.matrices, self.attention = flops.per_token(model), flops.per_square(config)
        unknown_start = state.timestamp.batch.value > 0 and not self.loaded
        if self.matrices is None or self.attention is None or unknown_start:
            self.flops = None
        if dist.get_global_rank() == 0:
            self.file = rows.continued(self.path, state.timestamp.batch.value)
            for row in self.early or ():
                self._write(row)
        self.early = None

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """Count the whole batch, of which a later event sees the last micro-batch alone."""
        if self.flops is None or self.matrices is None or self.attention is None:
            return
        tokens, squares = int(state.batch["attention_mask"].sum()), flops.squares(state.batch)
        here = self.matrices * tokens + self.attention * squares
        self.flops += here * dist.get_world_size()  # the ranks' rows are as many, and as long on average

    def batch_start(self, state: State, logger: Logger) -> None:
        self.learning_rate = state.optimizers[0].param_groups[0]["lr"]

    def batch_end(self, state: State, logger: Logger) -> None:
        row = {
            **self._time(state),
            "loss": finite(state.total_loss_dict.get("loss/train/total")),
            "learning_rate": self.learning_rate,
            **_rates(state),
        }
        self._write(row)

    def eval_end(self, state: State, logger: Logger) -> None:
        if state.dataloader_label != "eval":
            return
        values = {key: finite(metric.compute()) for key, metric in state.eval_metrics["eval"].items()}
        evaluation = {NAMES.get(key, key): value for key, value in values.items()}
        self._write({**self._time(state), "evaluation": evaluation})

    def close(self, state: State, logger: Logger) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _time(self, state: State) -> dict[str, Any]:
        time = state.timestamp
        tokens = {"tokens": time.token.value} if time.token.value else {}
        counted = {"batch": time.batch.value, "samples": time.sample.value, **tokens}
        spent = {"seconds": round(time.total_wct.total_seconds(), 6)}
        return {**counted, **spent, **({} if self.flops is None else {"flops": self.flops})}

    def _write(self, row: dict[str, Any]) -> None:
        if self.early is not None and self.file is None:
            self.early.append(row)
        if self.file is not None:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()


def finite(value: Any) -> float | None:
    """`value` as a float; None if there is none, or if JSON has no spelling for it."""
    return float(value) if value is not None and math.isfinite(float(value)) else None


def _rates(state: State) -> dict[str, float]:
    """Tokens or samples per second of the last batch."""
    now, before = state.timestamp, state.previous_timestamp
    if before is None or now.total_wct == before.total_wct:
        return {}
    seconds = (now.total_wct - before.total_wct).total_seconds()
    if now.token.value:
        return {"tokens_per_second": (now.token.value - before.token.value) / seconds}
    return {"samples_per_second": (now.sample.value - before.sample.value) / seconds}
