"""Runs a model for a look at it, and leaves it as it was."""

import random
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

CONTAINERS = (dict, OrderedDict, defaultdict, list)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restore on exit, also after an error, what calls of `model` can change.

    - of each module: its attributes, `training`, hooks and buffers, with the values of the buffers;
    - of each parameter: `requires_grad` and `grad`. Within, `grad` is None, so a backward adds to nothing;
    - the random state of torch (CPU and the model's devices), numpy and Python.

    Within, gradients are on, and autocast, TF32 and inference mode are off, whatever is around. The values of
    parameters aren't kept: a copy would take as much memory as the model.
    """
    with ExitStack() as stack:
        stack.enter_context(without_tf32())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", *(device.type for device in _devices(model))} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(same_random_state(_devices(model)))
        stack.callback(_restore_modules, [_module_state(module) for module in model.modules()])
        stack.callback(_restore_buffers, [(buffer, buffer.clone()) for buffer in model.buffers()])
        stack.callback(_restore_gradients, [(p, p.requires_grad, p.grad) for p in model.parameters()])
        for parameter in model.parameters():
            parameter.grad = None
        yield


@contextmanager
def without_tf32() -> Iterator[None]:
    """Products in float32 are exact, also where a trainer allows TF32, which keeps 10 of 23 bits."""
    kept = [(each, *_tf32_setting(each)) for each in (torch.backends.cuda.matmul, torch.backends.cudnn)]
    try:
        for each, name, _ in kept:
            setattr(each, name, "ieee" if name == "fp32_precision" else False)
        yield
    finally:
        for each, name, value in kept:
            setattr(each, name, value)


def _tf32_setting(backend: Any) -> tuple[str, Any]:
    """The name and the value of the switch that this process uses; torch refuses to read the other one."""
    try:
        return "allow_tf32", backend.allow_tf32
    except RuntimeError:
        return "fp32_precision", backend.fp32_precision


@contextmanager
def same_random_state(devices: set[torch.device]) -> Iterator[None]:
    """Restore on exit the random state of torch, on the CPU and on `devices`, of numpy and of Python."""
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for device in devices:
            if device.type not in ("cpu", "meta"):
                place = [device.index or 0]
                stack.enter_context(torch.random.fork_rng(devices=place, device_type=device.type))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _devices(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers())}


def _module_state(module: nn.Module) -> tuple[dict, dict, list[tuple[Any, Any]]]:
    """The attributes of a module, and the contents of those that are containers, hooks among them."""
    attributes = vars(module)
    held = [(value, value.copy()) for value in attributes.values() if type(value) in CONTAINERS]
    return attributes, attributes.copy(), held


def _restore_modules(states: list[tuple[dict, dict, list[tuple[Any, Any]]]]) -> None:
    for attributes, copy, held in states:
        attributes.clear()
        attributes.update(copy)
        for value, contents in held:
            value.clear()
            value.extend(contents) if isinstance(value, list) else value.update(contents)


def _restore_buffers(values: list[tuple[Tensor, Tensor]]) -> None:
    """In place, and only what differs: a write would fail a graph that waits for its backward."""
    with torch.no_grad():
        for buffer, value in values:
            if not buffer.is_meta and not torch.equal(buffer, value):
                buffer.copy_(value)


def _restore_gradients(states: list[tuple[nn.Parameter, bool, Tensor | None]]) -> None:
    for parameter, requires_grad, grad in states:
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
        parameter.grad = grad
