"""Compiled layers: `train.compile_layers`."""

import torch
from torch import nn

from cadenza.recipe.errors import RecipeError
from cadenza.recipe.parallelism import is_layer

GRAPHS = 64  # of a layer: training and evaluation, the last layer, batches of one block; torch's limit is 8


def compile_layers(model: nn.Module) -> None:
    """Compile each layer of an operated `model`, for any number of rows, in place.

    Not the model as a whole: its graph would end where the documents of a batch are read.

    Raises:
        RecipeError: it has no layers of a transformers model.
    """
    layers = [module for module in model.modules() if is_layer(module)]
    if not layers:
        raise RecipeError("train.compile_layers: the model has no layers of transformers; leave it out")
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    for layer in layers:
        layer.compile(dynamic=True)
