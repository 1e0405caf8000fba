"""Which linear layers of a model can be stored otherwise, and why the rest can't."""

from collections import Counter
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from cadenza.surgery.engine import Site, sites
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import Stage, ledger
from cadenza.surgery.parameters import set_attributes
from cadenza.surgery.quantized_linear import Quantized
from cadenza.surgery.retype import Undo, chain, is_stock, stock_class

READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def wanted(path: str, only: list[str] | None, but: list[str] | None) -> bool:
    """Whether a module's path matches a glob of `only` (None is all) and none of `but`."""

    def matches(globs: list[str]) -> bool:
        return any(fnmatchcase(path, glob) for glob in globs)

    return (only is None or matches(only)) and not matches(but or [])


def spared(
    model: nn.Module, technique: str, heads: bool, kinds: tuple[type, ...] = (nn.Linear,)
) -> dict[str, str]:
    """The layers of `kinds` in `model`, and those like them, that have to stay as they are: path and reason.

    Args:
        model: its root.
        technique: the class name of the surgery that asks; what another one has quantized is spared.
        heads: whether output heads and layers whose weight another module holds, too, are spared as well.
        kinds: classes of torch.
    """
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    modules, found = dict(model.named_modules()), {}
    ends = _heads(model) if heads else set()
    for site in sites(model):
        if not _is_like(site.module, kinds):
            continue
        why = _quantized(site, technique) or _unfit(site, kinds) or _claimed(site, modules)
        if not why and heads and owners[id(site.module._parameters.get("weight"))] > 1:
            why = "its weight is tied to another module's"
        if not why and site.module in ends:
            why = "it is the output head"
        if why:
            found[site.path] = why
    return found


def _is_like(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """Whether `module` is one of `kinds` or transformers' linear Conv1D, with a weight that isn't packed."""
    like = isinstance(module, kinds) or stock_class(module).__name__ == "Conv1D"
    return like and not isinstance(module, Quantized)


def untie(site: Site) -> Undo:
    """Let a Hugging Face model know that the layer at `site` no longer shares its weight.

    Raises:
        SurgeryError: it shares more than its weight.
    """
    host: Any = site.host
    tied = getattr(host, "all_tied_weights_keys", {})
    here = [path for path, module in host.named_modules() if module is site.module] if tied else []
    shared = [key for key, of in tied.items() if {_owner(key), _owner(of)} & set(here)]
    if not shared:
        return lambda: None
    if len(shared) > 1:
        raise SurgeryError(
            f"{site.path} shares {', '.join(shared)}; build the model with tie_word_embeddings=False"
        )
    left = {key: of for key, of in tied.items() if key not in shared}
    return chain(
        partial(set_attributes, host, all_tied_weights_keys=left),
        partial(set_attributes, host.config, tie_word_embeddings=False),
    )


def _owner(key: str) -> str:
    return key.rpartition(".")[0]


def _quantized(site: Site, technique: str) -> str | None:
    """Which other technique computes with other weights than the layer's."""
    entries = ledger(site.module).items()
    held = [e.surgery for name, e in entries if e.stage == Stage.QUANTIZE and name != technique]
    return f"{held[0]} is in place" if held else None


def _unfit(site: Site, kinds: tuple[type, ...]) -> str | None:
    """What of the layer itself keeps it as it is."""
    module: Any = site.module
    if stock_class(module) not in kinds and not is_stock(module, "FalconLinear"):
        return f"{stock_class(module).__name__} is not {' or '.join(f'nn.{kind.__name__}' for kind in kinds)}"
    weight = module.weight
    if weight.numel() == 0:
        return "its weight is empty"
    return None if weight.is_floating_point() else f"its weight is of {weight.dtype}"


def _claimed(site: Site, modules: dict[str, nn.Module]) -> str | None:
    """What of the modules around the layer keeps it as it is."""
    names = site.path.split(".")
    for depth in range(len(names)):
        parent = modules[".".join(names[:depth])]
        if isinstance(parent, READERS):
            return f"{type(parent).__name__} reads its weight itself"
        if "base_layer" in parent._modules and names[depth] != "base_layer":
            return "it is an adapter"
    kept = getattr(site.host, "_keep_in_fp32_modules", None) or ()
    return "the model keeps it in float32" if set(names) & set(kept) else None


def _heads(model: nn.Module) -> set[nn.Module]:
    """Output embeddings, and the last linear layer outside of each base model."""
    hosts = {site.host for site in sites(model) if site.host is not None}
    found = {_last(host) for host in hosts} if hosts else {_last(model)}
    found |= {host.get_output_embeddings() for host in hosts}
    return {head for head in found if head is not None and head is not model}


def _last(model: Any) -> nn.Module | None:
    base = getattr(model, "base_model", None)
    inner = set(base.modules()) if isinstance(base, nn.Module) else set()
    outer = [m for m in model.modules() if isinstance(m, nn.Linear) and m not in inner]
    return outer[-1] if outer else None
