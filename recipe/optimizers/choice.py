"""Which optimizer a recipe names, and whether it can be built."""

from importlib.util import find_spec
from typing import Any

import torch
from composer.optim import DecoupledAdamW
from torch import nn

from cadenza.recipe.errors import RecipeError, nearest
from cadenza.recipe.optimizers.muon import MuonAdamW
from cadenza.recipe.schema import Optimizer, Train


def _stable_adamw(groups: Any, **options: Any) -> torch.optim.Optimizer:
    """StableAdamW (arXiv 2304.13013) of torch-optimi, an extra, so it is imported here."""
    from optimi import StableAdamW

    optimizer = StableAdamW(groups, decouple_lr=True, **options)
    optimizer.register_step_pre_hook(_no_kernels_on_cpus)
    return optimizer


def _no_kernels_on_cpus(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Keep parameters on a CPU from Triton's kernels, which torch-optimi takes wherever it finds a GPU."""
    for group in optimizer.param_groups:
        if group["triton"] is not False and not all(p.is_cuda for p in group["params"]):
            group["triton"] = False


OPTIMIZERS: dict[str, Any] = {
    "decoupled_adamw": DecoupledAdamW,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "muon": MuonAdamW,
    "stable_adamw": _stable_adamw,
}
WHOLE = {"muon": "matrices", "stable_adamw": "parameters"}  # what each of its updates is computed of


def refuse_unusable(section: Optimizer, train: Train) -> None:
    """Raise if the named optimizer can't train here.

    Raises:
        RecipeError: Muon without torch 2.9, or with sharded matrices, which it can't orthogonalize;
            StableAdamW without torch-optimi, or with shards, of which it would clip each by its own RMS.
    """
    if section.name == "muon" and not hasattr(torch.optim, "Muon"):
        raise RecipeError(f"optimizer.name is muon, which needs torch 2.9; this is torch {torch.__version__}")
    if section.name == "stable_adamw" and not find_spec("optimi"):
        raise RecipeError(
            "optimizer.name is stable_adamw, which needs torch-optimi: pip install 'cadenza[stable_adamw]'"
        )
    if section.name in WHOLE and train.parallelism_config:
        raise RecipeError(
            f"optimizer.name is {section.name}, which needs whole {WHOLE[section.name]}, but "
            "train.parallelism_config shards them; leave one of the two out"
        )


def optimizer_for(section: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over all parameters of `model`: one group, two if only matrices decay, Muon's besides.

    Raises:
        RecipeError: an unknown name, or a model that the optimizer can't train.
    """
    if section.name not in OPTIMIZERS:
        raise RecipeError(f"optimizer.name: {section.name!r} is unknown; {nearest(section.name, OPTIMIZERS)}")
    if section.name == "muon":
        return MuonAdamW(model, section)
    if section.name == "sgd":
        own: dict[str, Any] = {"momentum": section.momentum, "nesterov": section.nesterov}
    else:
        own = {"betas": tuple(section.betas), "eps": section.eps}
    groups: Any = model.parameters()
    if section.decay_matrices_only:
        groups = [
            {"params": [p for p in model.parameters() if p.ndim > 1]},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
    return OPTIMIZERS[section.name](groups, lr=section.lr, weight_decay=section.weight_decay, **own)
