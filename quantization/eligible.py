"""Which layers of a model can be quantized and are selected, and why the others can't."""

import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.surgery.engine import Site, sites
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import ledger
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.retype import Stage, Undo, is_stock, stock_class

NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # of a layer, in a path
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # use weights of layers without calling them


def ineligible(
    model: nn.Module, technique: str, heads: bool, kinds: tuple[type, ...] = (nn.Linear,)
) -> dict[str, str]:
    """The layers in `model` that look like `kinds`, but can't be quantized: path and reason.

    Args:
        model: the root.
        technique: the class name of the calling surgery; layers quantized by another one are ineligible.
        heads: whether output heads and layers with tied weights are ineligible, too.
        kinds: classes of torch.
    """
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    modules, reasons = dict(model.named_modules()), {}
    outputs = _heads(model) if heads else set()
    for site in sites(model):
        if not _is_like(site.module, kinds):
            continue
        why = _quantized(site, technique) or _unfit(site, kinds) or _reserved(site, modules)
        if not why and heads and owners[id(site.module._parameters.get("weight"))] > 1:
            why = "its weight is tied to another module's"
        if not why and site.module in outputs:
            why = "it is the output head"
        if why:
            reasons[site.path] = why
    return reasons


def untie(site: Site) -> Iterator[Undo]:
    """Tell the Hugging Face model around the layer at `site` that the layer no longer shares its weight.

    Raises:
        SurgeryError: the layer shares more than its weight.
    """
    host: Any = site.host
    tied = getattr(host, "all_tied_weights_keys", {})
    paths = {path for path, module in host.named_modules() if module is site.module} if tied else set()
    shared = [key for key, source in tied.items() if paths & {k.rpartition(".")[0] for k in (key, source)}]
    if not shared:
        return
    if len(shared) > 1:
        raise SurgeryError(
            f"{site.path} shares {', '.join(shared)}; build the model with tie_word_embeddings=False"
        )
    others = {key: source for key, source in tied.items() if key not in shared}
    yield set_attributes(host, all_tied_weights_keys=others)
    yield set_attributes(host.config, tie_word_embeddings=False)


def _is_like(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """Whether `module` is of `kinds` or transformers' linear Conv1D, and its weight is not packed."""
    like = isinstance(module, kinds) or stock_class(module).__name__ == "Conv1D"
    return like and not isinstance(module, Quantized)


def _quantized(site: Site, technique: str) -> str | None:
    """The reason if a technique other than `technique` has quantized the layer."""
    entries = ledger(site.module).values()
    others = [e for e in entries if e.stage == Stage.QUANTIZE and e.name != technique]
    return f"{others[0]} is in place" if others else None


def _unfit(site: Site, kinds: tuple[type, ...]) -> str | None:
    """The reason if the class or the weight of the layer is not supported."""
    module: Any = site.module
    if stock_class(module) not in kinds and not is_stock(module, "FalconLinear"):
        return f"{stock_class(module).__name__} is not {' or '.join(f'nn.{kind.__name__}' for kind in kinds)}"
    if module._parameters.get("weight") is None:
        return "its weight is computed from other tensors, as after pruning or weight_norm"
    if module.weight.numel() == 0:
        return "its weight is empty"
    return None if module.weight.is_floating_point() else f"its weight is of {module.weight.dtype}"


def _reserved(site: Site, modules: dict[str, nn.Module]) -> str | None:
    """The reason if a module around the layer needs it unquantized."""
    names = site.path.split(".")
    for depth in range(len(names)):
        parent = modules[".".join(names[:depth])]
        if isinstance(parent, READERS):
            return f"{type(parent).__name__} reads its weight itself"
        if "base_layer" in parent._modules and names[depth] != "base_layer":
            return "it is an adapter"
    float32 = getattr(site.host, "_keep_in_fp32_modules", None) or ()
    return "the model keeps it in float32" if set(names) & set(float32) else None


def _heads(model: nn.Module) -> set[nn.Module]:
    """Output embeddings, and the last linear layer outside of each base model."""
    hosts = {site.host for site in sites(model) if site.host is not None}
    heads = {_last(host) for host in hosts} if hosts else {_last(model)}
    heads |= {host.get_output_embeddings() for host in hosts}
    return {head for head in heads if head is not None and head is not model}


def _last(model: Any) -> nn.Module | None:
    base = getattr(model, "base_model", None)
    inner = set(base.modules()) if isinstance(base, nn.Module) else set()
    outer = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inner]
    return outer[-1] if outer else None


def wanted(path: str, only: list[str] | None, except_: list[str] | None) -> bool:
    """Whether a module's path matches a glob of `only` (None matches all) and no glob of `except_`."""

    def matches(globs: list[str]) -> bool:
        return any(fnmatchcase(path, glob) for glob in globs)

    return (only is None or matches(only)) and not matches(except_ or [])


def globs(name: str, given: Any) -> list[str] | None:
    """The option `name`, globs of module paths, as a list; a single text is one glob.

    Raises:
        SurgeryError: it is neither a text nor a list of texts.
    """
    found = [given] if isinstance(given, str) else given
    if found is None:
        return None
    if not isinstance(found, list | tuple) or not all(isinstance(glob, str) for glob in found):
        raise SurgeryError(f"{name} is {given!r}; it must be a glob of module paths or a list of such globs")
    return list(found)


def refuse_unmatched(model: nn.Module, name: str, given: list[str] | None) -> None:
    """Raise if a glob of the option `name` matches no linear layer of `model`: it may be misspelt.

    A glob that matches only a module around layers, such as `*.mlp`, would select nothing either.
    """
    kinds = nn.Linear, Quantized
    paths = [path for path, m in model.named_modules() if isinstance(m, kinds) or _is_like(m, kinds)]
    for glob in given or () if paths else ():
        if not any(fnmatchcase(path, glob) for path in paths):
            near = get_close_matches(glob, sorted({NUMBER.sub("*", path) for path in paths}), 3, cutoff=0)
            raise SurgeryError(
                f"{name}: {glob!r} matches no linear layer of {type(model).__name__}; near: {', '.join(near)}"
            )
