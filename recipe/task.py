"""What differs between kinds of recipes: the model, the data, and what is measured."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from composer import Trainer
from composer.core import Algorithm, Callback, DataSpec
from composer.utils import dist
from safetensors.torch import save_file

from cadenza.algorithms import convert
from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.recipe import build
from cadenza.recipe.schema import Run

AnyRun = TypeVar("AnyRun", bound=Run)


class Task(ABC, Generic[AnyRun]):
    """A kind of recipe.

    A run calls `model`, `data`, `check`, `results`, `summary` and `keep`, in this order.

    Args:
        recipe: the checked recipe of a run.
    """

    weighs_tokens: ClassVar[bool]  # whether a micro-batch is weighted by its labels, not by its samples
    checkpoint: str | Path | None = None  # what the run loads; set before `model` is called
    scored = False  # whether what is loaded is only evaluated; likewise

    def __init__(self, recipe: AnyRun) -> None:
        self.recipe = recipe
        self.others: dict[str, DataSpec] = {}  # more data to evaluate on, by name; set by `data`

    @abstractmethod
    def model(self) -> Any:
        """The stock `ComposerModel`, before any technique is applied."""

    @abstractmethod
    def data(self, algorithms: Sequence[Algorithm] = ()) -> tuple[DataSpec, DataSpec]:
        """The training and the evaluation data of this rank; one of `algorithms` may need packed rows."""

    def check(self, model: Any) -> None:
        """Raise if `model`, with all techniques applied, can't be trained correctly."""

    def callbacks(self) -> list[Callback]:
        """What the results need of each evaluation."""
        return []

    @abstractmethod
    def results(self, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
        """The record's entries `train` and `eval` for a finished run."""

    @staticmethod
    @abstractmethod
    def summary(results: dict[str, Any]) -> str:
        """The results in lines, for the screen: of training first, then of evaluation."""

    def keep(self, model: Any, folder: Path) -> None:
        """Write to `folder` what no checkpoint holds: the integers of quantized layers."""
        if not self.recipe.train.parallelism_config:  # no rank holds all of a sharded model
            keep_integers(model, folder)

    def batch_sizes(self) -> tuple[int, int]:
        """The samples of one device's batch in training and in evaluation."""
        train, devices = self.recipe.train, dist.get_world_size()
        eval_batch = train.eval_batch_size or train.global_batch_size
        return (
            build.per_device(train.global_batch_size, devices, "train.global_batch_size"),
            build.per_device(eval_batch, devices, "train.eval_batch_size"),
        )


def keep_integers(model: Any, folder: Path) -> None:
    """Write the output of `convert` to `integers.safetensors`, unless a layer waits or calibrates."""
    layers = [module for module in model.modules() if isinstance(module, FakeQuantized)]
    unfinished = [layer for layer in layers if layer.calibrating]
    if any(layer.waiting for layer in layers):
        return
    if len(unfinished) == len(layers) or any(layer.input_batches for layer in unfinished):
        return
    integers = convert(model, unmeasured=True)  # a layer that training never called has no bounds
    path = folder / "integers.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(integers, path)
    before = sum(tensor.nbytes for tensor in model.state_dict().values())
    after = sum(tensor.nbytes for tensor in integers.values())
    print(f"integers: {path}, {after:,} bytes; the model's state takes {before:,}", flush=True)
