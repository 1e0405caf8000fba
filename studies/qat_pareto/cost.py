"""What the network of a point computes for one example: an image, or a text of the mean length."""

from typing import Any

import torch

from cadenza.data import build_image_dataspec
from cadenza.recipe import run as recipe_run
from cadenza.recipe.schema import ImageRecipe
from cadenza.studies import compute_cost
from cadenza.studies.qat_pareto.after import apply_quantized
from cadenza.studies.qat_pareto.plan import Cell


def cost_of(cell: Cell) -> dict[str, float]:
    """As `compute_cost.totals` gives it, of the network that inference runs."""
    task = recipe_run.task_of(cell.recipe)
    example = _image(cell.recipe) if isinstance(cell.recipe, ImageRecipe) else _text(task)
    model: Any = task.model()
    network = model.module if isinstance(cell.recipe, ImageRecipe) else model.model
    if cell.quantization:
        apply_quantized(network, cell.quantization)
    return compute_cost.totals(compute_cost.layer_costs(network, example))


def _image(recipe: ImageRecipe) -> torch.Tensor:
    data: Any = build_image_dataspec(recipe.data, train=False, batch_size=1, seed=recipe.seed)
    return next(iter(data.dataloader))[0]


def _text(task: Any) -> torch.Tensor:
    """Ids of one text, as long as those of the evaluation are on average; padding isn't computed."""
    _, evaluation = task.data()
    masks = [batch["attention_mask"] for batch in evaluation.dataloader]
    length = sum(int(mask.sum()) for mask in masks) / sum(len(mask) for mask in masks)
    return torch.ones(1, max(round(length), 1), dtype=torch.long)
