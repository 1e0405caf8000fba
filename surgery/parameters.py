"""Edits of parameters, buffers and attributes, each with its undo; new weights by the model's own init."""

import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from cadenza.surgery.retype import Undo

IGNORED_BY_DDP = "_ddp_params_and_buffers_to_ignore"


def replace_parameter(root: nn.Module, old: Parameter, new: Parameter) -> Undo:
    """Replace `old` by `new` in every module of `root` that holds it, so that tied weights stay tied."""
    places = [(m, name) for m in root.modules() for name, p in m._parameters.items() if p is old]

    def put(parameter: Parameter) -> None:
        for module, name in places:
            module._parameters[name] = parameter

    put(new)
    return lambda: put(old)


def take_parameter(module: nn.Module, name: str) -> Undo:
    """Remove the parameter `name` of `module`; the attribute stays, as None."""
    old, module._parameters[name] = module._parameters[name], None
    return lambda: module._parameters.update({name: old})


def add_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> Undo:
    """Register `buffers` on `module`."""
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)

    def undo() -> None:
        for name in buffers:
            del module._buffers[name]

    return undo


def store_instead(module: nn.Module, name: str, stored: dict[str, Tensor]) -> Undo:
    """Replace the parameter `name` by the buffers `stored`; one of them may have the same name."""
    parameters = dict(module._parameters)
    del module._parameters[name]
    remove = add_buffers(module, stored)

    def undo() -> None:
        remove()
        module._parameters.clear()  # refilled in the old order, which the state dict follows
        module._parameters.update(parameters)

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

    The content of `like`, the weight that is replaced, is the seed. So the new weight is the same in any
    order of surgeries, on any rank and device, and the global random state doesn't change.

    Args:
        shape: (rows, columns).
        like: the old weight, whose dtype and device the new one gets.
    """
    if like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(zlib.crc32(like.detach().float().cpu().numpy().tobytes()))
        module: Any = layer(shape[1], shape[0], bias=False) if layer is nn.Linear else layer(*shape)
        host._init_weights(module)
    return module.weight.detach().to(dtype=like.dtype, device=like.device)
