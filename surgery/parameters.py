"""Parameters in a surgery: replaced in every place that holds them, drawn as the model draws its own."""

import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import PreTrainedModel

from cadenza.surgery.retype import Undo

IGNORED_BY_DDP = "_ddp_params_and_buffers_to_ignore"


def replace_parameter(root: nn.Module, old: Parameter, new: Parameter) -> Undo:
    """Put `new` wherever `root` holds `old`, so that ties stay ties."""
    places = [
        (module, name)
        for module in root.modules()
        for name, parameter in module._parameters.items()
        if parameter is old
    ]

    def put(parameter: Parameter) -> None:
        for module, name in places:
            module._parameters[name] = parameter

    put(new)
    return lambda: put(old)


def take_parameter(module: nn.Module, name: str) -> Undo:
    """Take the parameter `name` out of `module`; the attribute stays, as None."""
    old = module._parameters[name]
    module._parameters[name] = None

    def undo() -> None:
        module._parameters[name] = old

    return undo


def add_buffers(module: nn.Module, buffers: dict[str, Tensor]) -> Undo:
    """Register `buffers`; the undo removes them."""
    for name, buffer in buffers.items():
        module.register_buffer(name, buffer)

    def undo() -> None:
        for name in buffers:
            del module._buffers[name]

    return undo


def store_instead(module: nn.Module, name: str, stored: dict[str, Tensor]) -> Undo:
    """Put the buffers `stored`, of which one may have this name, in place of the parameter `name`."""
    parameters = dict(module._parameters)
    del module._parameters[name]
    remove = add_buffers(module, stored)

    def undo() -> None:
        remove()
        module._parameters.clear()  # and refilled: the order of a state dict is that of its parameters
        module._parameters.update(parameters)

    return undo


def set_attributes(target: object, **values: object) -> Undo:
    """Set attributes of a module or a config; the undo restores their values or their absence."""
    old = {name: getattr(target, name) for name in values if hasattr(target, name)}
    for name, value in values.items():
        setattr(target, name, value)

    def undo() -> None:
        for name in values:
            setattr(target, name, old[name]) if name in old else delattr(target, name)

    return undo


def leave_to_each_rank(model: nn.Module, names: list[str]) -> Undo:
    """Keep DDP from sending the buffers `names` of `model` to all ranks in every forward."""
    ignored = getattr(model, IGNORED_BY_DDP, [])
    setattr(model, IGNORED_BY_DDP, [*ignored, *names])

    def undo() -> None:
        left = [name for name in getattr(model, IGNORED_BY_DDP) if name not in names]
        setattr(model, IGNORED_BY_DDP, left) if left else delattr(model, IGNORED_BY_DDP)

    return undo


def drawn(host: PreTrainedModel, layer: type[nn.Module], shape: tuple[int, int], like: Tensor) -> Tensor:
    """A weight (rows, columns) for `layer` (`nn.Linear` or `nn.Embedding`) by the host's own init.

    The draw is seeded by the content of `like`, the weight it succeeds: a function of the model
    alone, so it's the same in any order of surgeries, on any rank and device, and leaves the global
    random state untouched. The result has the dtype and device of `like`.
    """
    if like.is_meta:
        return torch.empty(shape, dtype=like.dtype, device="meta")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(_content(like))
        module: Any = layer(shape[1], shape[0], bias=False) if layer is nn.Linear else layer(*shape)
        host._init_weights(module)
    return module.weight.detach().to(dtype=like.dtype, device=like.device)


def _content(tensor: Tensor) -> int:
    return zlib.crc32(tensor.detach().float().cpu().numpy().tobytes())
