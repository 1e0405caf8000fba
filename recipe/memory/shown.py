"""The table of memory of a dry run, printed before data or weights are loaded."""

import psutil
import torch
from composer.utils import dist

from cadenza.recipe.callbacks import show
from cadenza.recipe.continuing.surgeries import with_recorded
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.loading.blame import blamed
from cadenza.recipe.memory.estimate import Estimate, estimate
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.memory.table import GIB, lines
from cadenza.recipe.schema import Run


def show_memory(recipe: Run, devices: int | None = None, available: float | None = None) -> Estimate:
    """Print the memory of one device.

    Args:
        devices: the world size; None: that of this run.
        available: the GiB of a CUDA device; None: of the one that is here, if there is one.

    Raises:
        RecipeError, ModelError, SurgeryError: as a run of the recipe would raise.
    """
    here = torch.cuda.is_available()
    cuda = here or available is not None or bool(recipe.train.parallelism_config)
    if available is None and here:
        available = torch.cuda.get_device_properties(0).total_memory / GIB
    world = devices or dist.get_world_size()
    found = blamed(lambda given: estimate(Setting.of(with_recorded(given), world, cuda)))(recipe)
    show("\n".join(lines(found, available)))
    return found


def refuse_too_large(found: Estimate) -> None:
    """Raise if this machine can't hold the whole weights, which the rest of a dry run builds.

    Raises:
        RecipeError: it has less memory than that.
    """
    needed, free = found.whole_weights, psutil.virtual_memory().available
    if needed > free:
        have = f"the model's weights take {needed / GIB:.1f} GiB, and {free / GIB:.1f} are free here"
        raise RecipeError(f"dry run: it ends after the table: {have}; go on where they fit")
