"""Post-training quantization: a trained network is quantized, and its bounds are set from some batches."""

from itertools import islice
from typing import Any

from torch import nn

from cadenza.algorithms import apply_quantization_aware_training
from cadenza.quantization.training.calibration import calibrate
from cadenza.recipe import run as recipe_run
from cadenza.recipe import trainer as recipe_trainer
from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto.plan import CALIBRATION, Cell

OPTIONS = ("weight_bits", "activation_bits", "edge_bits", "granularity")


def quantized_after(cell: Cell) -> dict[str, Any]:
    """The results of the network of a run in full precision, quantized after its training.

    Raises:
        StudyError: the run has no checkpoint.
    """
    recipe = cell.recipe
    task = recipe_run.task_of(recipe)
    built = recipe_run.built_of(task, recipe_trainer.trainer_settings(recipe))  # loads the weights
    trainer = built.trainer
    if trainer.state.timestamp.batch.value == 0:
        raise StudyError(f"{recipe.name}: there's no trained network to quantize; train it first")
    apply_quantized(trainer.state.model, cell.quantization)
    place: Any = trainer.state.device
    batches: Any = task.data()[0].dataloader  # anew: the trainer's has come to the end of an epoch
    calibrate(trainer.state.model, (place.batch_to_device(batch) for batch in islice(batches, CALIBRATION)))
    trainer.eval()
    found = task.results(trainer, built.evaluation)
    trainer.close()
    return found


def apply_quantized(model: nn.Module, options: dict[str, Any]) -> None:
    """Quantize `model` in place by the options of a point."""
    chosen = {name: options[name] for name in OPTIONS if name in options}
    apply_quantization_aware_training(model, **chosen)
