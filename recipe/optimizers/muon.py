"""Muon for the matrices of the layers and AdamW for all other parameters, as one optimizer.

1. `arrange` puts each parameter in the group of its kind. Surgeries replace parameters after the optimizer is
   built, so it is called before a checkpoint is loaded, and by each step that finds other parameters.
2. `step` hands the groups of AdamW to Composer's `DecoupledAdamW` and that of Muon to `torch.optim.Muon`;
   both work on the groups and the state of this optimizer, which are all that is saved.
3. A matrix that holds several maps (Q, K and V, or gate and value) is handed over as one view for each: the
   singular values of the whole aren't those of the maps.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.optim import DecoupledAdamW
from torch import nn
from torch.nn import Parameter

from cadenza.recipe.callbacks import show
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.optimizers.matrices import Stack, layer_matrices
from cadenza.recipe.schema import Optimizer

ADAMW, WITHOUT_DECAY, MUON = "adamw", "adamw without decay", "muon"
Group = dict[str, Any]


class MuonAdamW(torch.optim.Optimizer):
    """Muon (arXiv 2502.16982) for `layer_matrices`, DecoupledAdamW for the rest.

    Each parameter group has a `name`: `adamw`, `adamw without decay`, `muon`. Weight decay is that of
    DecoupledAdamW in all of them: a step multiplies weights by 1 - `weight_decay` x the schedule, 0 to 1.

    Args:
        model: its parameters are trained, also those that surgeries give it later.
        section: the recipe's section, with the name `muon`.

    Raises:
        RecipeError: `model` has no layers of transformers with matrices.
    """

    def __init__(self, model: nn.Module, section: Optimizer) -> None:
        self.model = model
        self._stacks = layer_matrices(model)
        if not self._stacks:
            raise RecipeError(
                "optimizer.name is muon, but the model has no trained matrices in layers of transformers; "
                "choose decoupled_adamw"
            )
        groups = _groups(model, self._stacks, section)
        super().__init__(groups, {"lr": section.lr, "weight_decay": section.weight_decay})
        for group in self.param_groups:
            group["initial_lr"] = group["lr"]
        self._adamw = DecoupledAdamW(self._of(ADAMW, WITHOUT_DECAY), section.lr)
        self._muon = torch.optim.Muon(self._stacks)
        self._arranged = self._held()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient; the loss of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._held() != self._arranged:
            self.arrange()
        self._adamw.param_groups, self._adamw.state = self._of(ADAMW, WITHOUT_DECAY), self.state
        self._adamw.step()
        (group,) = self._of(MUON)
        self._step_matrices(group)
        return loss

    def arrange(self) -> None:
        """Move each parameter whose kind has changed to the group of its kind, without its state."""
        self._stacks = layer_matrices(self.model)
        order = {p: index for index, p in enumerate(self.model.parameters())}
        for group in self.param_groups:
            kept = [p for p in group["params"] if (p in self._stacks) == (group["name"] == MUON)]
            moved = [p for p in group["params"] if all(p is not other for other in kept)]
            group["params"] = kept
            for parameter in moved:
                self._move(parameter, order)
        self._arranged = self._held()

    def described(self) -> str:
        """The number of parameters in each group, in a line."""
        groups = [group for group in self.param_groups if group["params"]]
        sizes = [f"{sum(p.numel() for p in group['params']):,}" for group in groups]
        texts = (
            f"{g['name']} {size} in {len(g['params'])} tensors" for g, size in zip(groups, sizes, strict=True)
        )
        return "parameters by optimizer: " + ", ".join(texts)

    def _step_matrices(self, group: Group) -> None:
        pieces, state = [], defaultdict(dict)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            own = self.state[parameter]
            if "momentum_buffer" not in own:
                own["momentum_buffer"] = torch.zeros_like(parameter.grad)
            whole = parameter.detach(), parameter.grad, own["momentum_buffer"]
            for piece, grad, buffer in zip(*map(self._stacks[parameter].pieces, whole), strict=True):
                piece.grad = grad
                pieces.append(piece)
                state[piece]["momentum_buffer"] = buffer
        decay = group["weight_decay"] / (group["initial_lr"] or 1.0)  # Muon multiplies it by `lr`
        self._muon.param_groups = [{**group, "params": pieces, "weight_decay": decay}]
        self._muon.state = state
        self._muon.step()

    def _move(self, parameter: Parameter, order: dict[Parameter, int]) -> None:
        name = MUON if parameter in self._stacks else WITHOUT_DECAY if parameter.ndim <= 1 else ADAMW
        (group,) = self._of(name) or self._of(ADAMW)
        group["params"] = sorted([*group["params"], parameter], key=lambda p: order.get(p, -1))
        self.state.pop(parameter, None)

    def _of(self, *names: str) -> list[Group]:
        return [group for group in self.param_groups if group["name"] in names]

    def _held(self) -> list[int]:
        return [id(p) for group in self.param_groups for p in group["params"]]


class Arranges(Callback):
    """Arranges the optimizer after the surgeries, before a checkpoint is loaded, and says what it holds."""

    def __init__(self, optimizer: MuonAdamW) -> None:
        self.optimizer = optimizer

    def before_load(self, state: State, logger: Logger) -> None:
        """Arrange it and show its groups."""
        self.optimizer.arrange()
        show(self.optimizer.described())


def _groups(model: nn.Module, stacks: dict[Parameter, Stack], section: Optimizer) -> list[Group]:
    """The parameter groups; AdamW's come first, so that a run's learning rate is `lr`."""
    others = [p for p in model.parameters() if p not in stacks]
    adamw = {"betas": tuple(section.betas), "eps": section.eps, "amsgrad": False}
    groups: list[Group] = [{"name": ADAMW, "params": others, **adamw}]
    if section.decay_matrices_only:
        groups[0]["params"] = [p for p in others if p.ndim > 1]
        exempt = [p for p in others if p.ndim <= 1]
        groups.append({"name": WITHOUT_DECAY, "params": exempt, "weight_decay": 0.0, **adamw})
    defaults = torch.optim.Muon([next(iter(stacks))]).defaults
    chosen = {
        "name": MUON,
        "params": [p for p in model.parameters() if p in stacks],
        "lr": section.lr if section.muon_lr is None else section.muon_lr,
        "weight_decay": section.weight_decay,
        "momentum": section.muon_momentum,
        "nesterov": section.muon_nesterov,
        "adjust_lr_fn": section.muon_adjust_lr,
    }
    return [*groups, {**defaults, **chosen}]
