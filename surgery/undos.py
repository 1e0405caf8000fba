"""The undos of a surgery: what they need to be possible, and where restored tensors belong by then."""

from collections.abc import Iterable, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers.places import Memory, Names, named_parameters, sync
from cadenza.surgery.parameters import Moved, replace_parameter
from cadenza.surgery.retype import Undo, is_derived

SHARDED = {
    "DistributedDataParallel",
    "FullyShardedDataParallel",
    "DataParallel",
    "FSDPModule",
    "ReplicateModule",
}
COMPILED = "OptimizedModule"
Tensors = dict[str, Tensor]  # by name


class Placement(NamedTuple):
    """Where a tensor is, and in which dtype."""

    dtype: torch.dtype
    device: torch.device


class Held(NamedTuple):
    """A module whose tensors a surgery changed, and their names."""

    module: nn.Module
    names: set[str]


class Undos:
    """The undos of a surgery, and the optimizers to update."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        self.model, self.optimizers = model, optimizers
        self.forget()

    def run(self, steps: Iterable[Undo]) -> None:
        """Run `steps`, keep the undo that each yields, and update the optimizers; undo all if one raises."""
        before, types = named_parameters(self.model), {m: type(m) for m in self.model.modules()}
        tensors = _tensors(self.model)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        try:
            for undo in steps:
                self._undos.append(undo)
            self._remember(types, tensors, shapes)
            after = named_parameters(self.model)
            self._memory = sync(self.optimizers, before, after, {})
            self.taken, self.made = _trainable(before, after), _trainable(after, before)
        except BaseException:
            self._run_all()
            raise

    def undo(self) -> None:
        """Undo all steps, the last one first, and restore the optimizers.

        A tensor that comes back gets the dtype and the device that its neighbours have by then.

        Raises:
            SurgeryError: the model was sharded, parametrized or hooked since; nothing is undone.
        """
        if not self._undos:
            return
        self._refuse_if_changed()
        before = _tensors(self.model)
        now = {name: _placement(tensor) for name, tensor in before.items()}
        self._refuse_without_values(now)
        held = {id(tensor) for tensor in before.values()}
        self._run_all()
        self.taken, self.made = [], []
        for name, tensor in _tensors(self.model).items():
            was = _placement(tensor)
            if id(tensor) not in held and (place := _nearest(name, was, self._then, now)) != was:
                _move(self.model, name, tensor, place)

    def forget(self) -> None:
        """Drop the undos, and free what they hold."""
        self._undos: list[Undo] = []
        self._memory: Memory = {}
        self._retyped: dict[str, nn.Module] = {}  # by path
        self._bypassed: dict[str, object] = {}  # their earlier `forward`, if they have another one now
        self._held: dict[str, Held] = {}  # by path, the modules with other tensors
        self._then: dict[str, Placement] = {}
        self._removed: dict[str, Placement] = {}
        self.taken: list[Parameter] = []  # trainable parameters of before that the model lost
        self.made: list[Parameter] = []  # trainable parameters that it got

    def _run_all(self) -> None:
        before = named_parameters(self.model)
        while self._undos:
            self._undos.pop()()
        sync(self.optimizers, before, named_parameters(self.model), self._memory)

    def _remember(self, types: dict[nn.Module, type], before: Tensors, shapes: dict[str, Any]) -> None:
        """What an undo needs to find; raises if a class was changed that the module doesn't run."""
        modules, after = dict(self.model.named_modules()), _tensors(self.model)
        self._retyped = {path: m for path, m in modules.items() if m in types and type(m) is not types[m]}
        forwards = {path: _forward(types[m]) for path, m in self._retyped.items()}
        self._bypassed = {p: f for p, f in forwards.items() if f is not _forward(type(self._retyped[p]))}
        self._refuse_own_forward("operate before it is set")
        changed = {n for n in before.keys() | after.keys() if before.get(n) is not after.get(n)}
        resized = {n for n, tensor in after.items() if shapes.get(n) != tensor.shape}
        owners = {name.rpartition(".")[0] for name in changed | resized}
        found = {path: modules[path] for path in owners if path in modules}
        self._held = {path: Held(module, _names(module)) for path, module in found.items()}
        self._then = {name: _placement(tensor) for name, tensor in after.items()}
        self._removed = {name: _placement(before[name]) for name in changed if name in before}

    def _refuse_if_changed(self) -> None:
        refuse_wrapped(self.model, "undo surgeries")
        for path, module in self._retyped.items():
            if is_derived(module):
                raise SurgeryError(
                    f"{path or '(root)'}: {type(module).__name__} was made of its class after the surgery; "
                    "undo that first (a parametrization: torch.nn.utils.parametrize.remove_parametrizations)"
                )
        self._refuse_own_forward("undo after it is removed")
        modules = dict(self.model.named_modules())
        for path, held in self._held.items():
            if lost := held.names - _names_now(path, held.module, modules):
                raise SurgeryError(
                    f"{path}: {lost.pop()} was taken away after the surgery; remove the parametrization, "
                    "pruning, weight norm or adapter before the undo"
                )

    def _refuse_own_forward(self, advice: str) -> None:
        for path, forward in self._bypassed.items():
            module = self._retyped[path]
            own = vars(module).get("forward")
            if getattr(own, "__func__", None) in (forward, _forward(type(module))):
                del (
                    module.forward
                )  # that of its class: what accelerate leaves behind when it removes its hooks
            elif own is not None:
                raise SurgeryError(
                    f"{path or '(root)'}: its forward is set on the module itself, so that of its class has "
                    f"no effect; {advice} (accelerate's hooks: remove_hook_from_module)"
                )

    def _refuse_without_values(self, now: dict[str, Placement]) -> None:
        for name, was in self._removed.items():
            place = _nearest(name, was, self._then, now)
            if was.device.type == "meta" and place.device.type != "meta":
                raise SurgeryError(
                    f"{name} was on meta when it was removed, so there are no values to restore"
                )


def refuse_wrapped(model: nn.Module, what: str) -> None:
    """Raise if `model` is compiled, or holds a part that is sharded or replicated."""
    if type(model).__name__ == COMPILED:
        raise SurgeryError(f"{what} on the model before it is wrapped in {COMPILED}, not after")
    for path, module in model.named_modules():
        names = {cls.__name__ for cls in type(module).__mro__} & SHARDED
        names |= {"DTensor"} & {type(p).__name__ for p in module._parameters.values()}
        if names:
            where = f"; {path} is" if path else ""
            raise SurgeryError(f"{what} on the model before it is wrapped in {names.pop()}, not after{where}")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by each of their names."""
    return {**named_parameters(model), **dict(model.named_buffers(remove_duplicate=False))}


def _trainable(parameters: Names, others: Names) -> list[Parameter]:
    """Those of `parameters` that train and are none of `others`."""
    known = {id(p) for p in others.values()}
    found = {id(p): p for p in parameters.values() if p.requires_grad and id(p) not in known}
    return list(found.values())


def _names(module: nn.Module) -> set[str]:
    return module._parameters.keys() | module._buffers.keys()


def _names_now(path: str, then: nn.Module, modules: dict[str, nn.Module]) -> set[str]:
    """The names of the tensors of the module that was `then` at `path`; a surgery may have moved it."""
    there = modules.get(path)
    if (there is None or isinstance(there, Moved)) and any(then is module for module in modules.values()):
        there = then
    return set() if there is None else _names(there)


def _forward(cls: type) -> object:
    return getattr(cls, "forward", None)


def _placement(tensor: Tensor) -> Placement:
    return Placement(tensor.dtype, tensor.device)


def _nearest(name: str, was: Placement, then: dict[str, Placement], now: dict[str, Placement]) -> Placement:
    """The placement now of the tensor of the nearest name that was placed as `name` was; else `was`."""

    def shared(other: str) -> tuple[bool, int]:
        return other == name, len(commonprefix([other.split("."), name.split(".")]))

    found = [other for other in now if then.get(other) == was]
    return now[max(found, key=shared)] if found else was


def _move(model: nn.Module, name: str, tensor: Tensor, place: Placement) -> None:
    """Move a parameter in place, as `nn.Module.to` does, or a buffer."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor.to(place.device, place.dtype)
        return
    moved = tensor.data.to(place.device, place.dtype)
    if not torch._has_compatible_shallow_copy_type(tensor.data, moved):  # to meta
        replace_parameter(model, owner.get_parameter(leaf), Parameter(moved, tensor.requires_grad))
        return
    gradient, tensor.grad = tensor.grad, None
    tensor.data = moved
    tensor.grad = None if gradient is None else gradient.to(place.device, place.dtype)
