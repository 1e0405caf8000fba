"""Edits of parameters, buffers and attributes, each with its undo; new weights by the model's own init."""

import copy
import zlib
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import ledger
from cadenza.surgery.retype import Undo

IGNORED_BY_DDP = "_ddp_params_and_buffers_to_ignore"

# What `take_parameter` has removed, and how often: two techniques may take the same bias.
_TAKEN: WeakKeyDictionary[nn.Module, dict[str, tuple[Parameter | None, int]]] = WeakKeyDictionary()


def replace_parameter(root: nn.Module, old: Parameter, new: Parameter) -> Undo:
    """Replace `old` by `new` in every module of `root` that holds it, so that tied weights stay tied."""
    places = [(m, name) for m in root.modules() for name, p in m._parameters.items() if p is old]
    if not places:
        raise SurgeryError(
            f"{type(root).__name__} holds no parameter to replace: its weight is computed, by a "
            "parametrization, pruning or weight norm; remove that first"
        )

    def put(parameter: Parameter) -> None:
        for module, name in places:
            module._parameters[name] = parameter

    put(new)
    return lambda: put(old)


def resize_rows(parameter: Parameter, data: Tensor) -> None:
    """Give `parameter` the content `data`, of other rows, in place; a gradient follows by `with_rows`."""
    gradient, parameter.grad = parameter.grad, None
    # While a graph of before is alive, autograd expects the shape of before, until the dtype changes.
    parameter.data = data.to(torch.float16 if data.dtype != torch.float16 else torch.float32)
    parameter.data = data
    parameter.grad = None if gradient is None else with_rows(gradient, len(data))


def with_rows(tensor: Tensor, rows: int) -> Tensor:
    """The first `rows` of `tensor`, or all of them and zeros."""
    missing = max(0, rows - len(tensor))
    return torch.cat([tensor[:rows], tensor.new_zeros(missing, *tensor.shape[1:])])


def take_parameter(module: nn.Module, name: str) -> Undo:
    """Remove the parameter `name` of `module`; the attribute stays, as None.

    Where another technique has removed it before, it comes back after the undo of both.
    """
    taken = _TAKEN.setdefault(module, {})
    old, times = taken.get(name, (module._parameters[name], 0))
    taken[name] = old, times + 1
    module._parameters[name] = None

    def undo() -> None:
        old, times = taken.pop(name)
        if times > 1:
            taken[name] = old, times - 1
        else:
            module._parameters[name] = old

    return undo


def had_parameter(module: nn.Module, name: str) -> bool:
    """Whether `module` has the parameter `name`, or had it before `take_parameter`."""
    return module._parameters.get(name) is not None or name in _TAKEN.get(module, {})


class Moved(nn.Identity):
    """What stands in the place of a module that a surgery has moved."""


def move_module(source: nn.Module, name: str, target: nn.Module, new_name: str) -> Undo:
    """Move the child `name` of `source` to `target`; at its place its input is passed on."""
    child = source._modules[name]
    source._modules[name] = Moved()
    target.add_module(new_name, child)

    def undo() -> None:
        del target._modules[new_name]
        source._modules[name] = child

    return undo


def add_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> Undo:
    """Register `buffers` on `module`."""
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)

    def undo() -> None:
        for name in buffers:
            del module._buffers[name]

    return undo


def add_parameters(module: nn.Module, parameters: dict[str, Parameter]) -> Undo:
    """Register `parameters` on `module`."""
    for name, parameter in parameters.items():
        module.register_parameter(name, parameter)

    def undo() -> None:
        for name in parameters:
            del module._parameters[name]

    return undo


def store_instead(module: nn.Module, name: str, stored: dict[str, Tensor]) -> Undo:
    """Replace the parameter `name` by the buffers `stored`; one of them may have the same name."""
    order = list(module._parameters)
    old = module._parameters.pop(name)
    remove = add_buffers(module, stored)

    def undo() -> None:
        remove()
        now = {**module._parameters, name: old}  # another parameter may have been replaced meanwhile
        module._parameters.clear()  # refilled in the old order, which the state dict follows
        module._parameters.update({key: now.pop(key) for key in order if key in now}, **now)

    return undo


def set_attributes(target: object, **values: object) -> Undo:
    """Set attributes of a module or a config; the undo deletes those that weren't there before."""
    old = {name: getattr(target, name) for name in values if hasattr(target, name)}
    for name, value in values.items():
        setattr(target, name, value)

    def undo() -> None:
        for name in values:
            setattr(target, name, old[name]) if name in old else delattr(target, name)

    return undo


def leave_to_each_rank(model: nn.Module, names: list[str]) -> Undo:
    """Keep DDP from broadcasting the buffers `names` of `model` in every forward."""
    ignored = getattr(model, IGNORED_BY_DDP, [])
    setattr(model, IGNORED_BY_DDP, [*ignored, *names])

    def undo() -> None:
        left = [name for name in getattr(model, IGNORED_BY_DDP) if name not in names]
        setattr(model, IGNORED_BY_DDP, left) if left else delattr(model, IGNORED_BY_DDP)

    return undo


def new_weight(host: PreTrainedModel, layer: type[nn.Module], shape: tuple[int, int], like: Tensor) -> Tensor:
    """A new weight for `layer` (`nn.Linear` or `nn.Embedding`), initialized by `host`.

    The content of `like`, the weight that is replaced, and its name in `host` are the seed. So the new weight
    is the same in any order of surgeries, on any rank and device, and equal layers get different ones. The
    global random state doesn't change.

    Args:
        shape: (rows, columns).
        like: the old weight, whose dtype and device the new one gets.
    """
    if like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        content = zlib.crc32(like.detach().float().cpu().numpy().tobytes())
        torch.default_generator.manual_seed(zlib.crc32(_name(host, like).encode(), content))
        module: Any = layer(shape[1], shape[0], bias=False) if layer is nn.Linear else layer(*shape)
        host._init_weights(module)
    return module.weight.detach().to(dtype=like.dtype, device=like.device)


def _name(host: PreTrainedModel, weight: Tensor) -> str:
    """The first name of `weight` in `host`, the same with a head or without; empty if it has none."""
    found = (name for name, parameter in host.named_parameters() if parameter is weight)
    return next(found, "").removeprefix(f"{host.base_model_prefix}.")


def own_configs(model: nn.Module) -> None:
    """Give `model` a copy of its config before its first surgery.

    A surgery changes the config, and another model may have been made from the same one. Modules that share a
    config still do so afterwards.
    """
    if any(ledger(module) for module in model.modules()):
        return
    copies: dict[int, Any] = {}
    for module in model.modules():
        config: Any = vars(module).get("config")
        if hasattr(config, "to_dict"):
            module.config = copy.deepcopy(config, copies)
