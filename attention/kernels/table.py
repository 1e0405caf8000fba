"""The table of attention kernels and their features; `python -m cadenza.attention.kernels` prints it."""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels import flash, flex, sdpa, triton, varlen
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.runtime import constant, uncompiled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A kernel and its features.

    Args:
        run: computes attention by document; shapes as in `cadenza.attention.kernels.sdpa.stock`.
        read: makes what `run` reads of a call's documents, for a number of heads.
        dtypes: the dtypes of query, key and value, by device.
        head_dims: the head sizes on CUDA; on a CPU any size works.
        alibi, window, causal, dropout, anchor, softcap, sinks: whether it supports them.
        value_dim: whether heads of the value may have another size than those of the query.
        module: the Python module that it needs besides torch.
        torch: the first version of torch that has it.
        capability: the first compute capability of CUDA devices that can run it.
    """

    run: Callable[..., Tensor]
    read: Callable[[AttentionCall, int], object]
    dtypes: Mapping[str, tuple[str, ...]]
    head_dims: range = range(1, 257)
    alibi: bool = True
    window: bool = True
    causal: bool = True
    dropout: bool = False
    anchor: bool = True
    softcap: bool = False
    sinks: bool = False
    value_dim: bool = False
    module: str | None = None
    torch: tuple[int, int] = (2, 5)
    capability: tuple[int, int] = (0, 0)

    def missing(self) -> str | None:
        """What must be installed before it runs here; None if nothing."""
        if tuple(int(part) for part in torch.__version__.split(".")[:2]) < self.torch:
            return "torch>={}.{}".format(*self.torch)
        try:
            found = self.module is None or importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the package that contains the module
            found = False
        return None if found else self.module


ALL = ("float32", "bfloat16", "float16")
HALF = ("bfloat16", "float16")
CPU = (*ALL, "float64")

KERNELS: dict[str, Kernel] = {
    "flash": Kernel(flash.flash, flash.read, {"cuda": HALF}, dropout=True, module="flash_attn"),
    "varlen": Kernel(varlen.varlen, flash.read, {"cuda": HALF}, range(8, 257, 8), alibi=False, dropout=True),
    # The smallest matrix in Triton is 16 wide.
    "triton": Kernel(
        *(triton.triton, triton.read, {"cuda": HALF}, range(16, 129)),
        anchor=False,
        module="triton",
        capability=(8, 0),  # what a tile takes of a multiprocessor's memory
    ),
    "flex": Kernel(flex.flex, flex.read, {"cuda": ALL}, range(16, 257), value_dim=True),
    "fa4": Kernel(
        flex.fa4, flex.read, {"cuda": HALF}, range(16, 257), module="flash_attn.cute", torch=(2, 11)
    ),
    "sdpa": Kernel(  # with a limit of the scores or sinks, the model's own kernel is `eager`
        uncompiled(sdpa.stock),  # its calls depend on the documents' lengths
        lambda call, heads: None,
        {"cpu": CPU, "cuda": CPU},
        range(1, 2**16),
        dropout=True,
        softcap=True,
        sinks=True,
        value_dim=True,
    ),
}
"""In the order in which `auto` prefers them. It never chooses `fa4`, which is experimental."""

FEATURES = ("alibi", "window", "causal", "dropout", "anchor", "softcap", "sinks", "value_dim")
AUTO = ("flash", "varlen", "triton", "flex", "sdpa")


class Needs(NamedTuple):
    """The features that one call of attention needs."""

    device: str
    dtype: str
    head_dim: int = 64
    alibi: bool = False
    window: bool = False
    causal: bool = False
    dropout: bool = False
    anchor: bool = False
    softcap: bool = False
    sinks: bool = False
    value_dim: bool = False

    @classmethod
    def of(cls, call: AttentionCall, query: Tensor, value: Tensor) -> "Needs":
        return cls(
            device=query.device.type,
            dtype=str(query.dtype).removeprefix("torch."),
            head_dim=constant(query.shape[-1]),
            value_dim=constant(value.shape[-1]) != constant(query.shape[-1]),
            **features(call),
        )

    def __str__(self) -> str:
        asked = [name for name, value in zip(self._fields, self, strict=True) if value is True]
        return ", ".join([self.device, self.dtype, f"head_dim {self.head_dim}", *asked])


def features(call: AttentionCall) -> dict[str, bool]:
    """Whether a call needs each of `FEATURES` but `value_dim`, which its tensors show."""
    return {
        "alibi": call.bias is not None,
        "window": call.window is not None,
        "causal": call.causal,
        "dropout": True if call.dropout > 0 else False,  # noqa: SIM210  so a graph holds for one of them
        "anchor": call.documents.anchored,
        "softcap": "softcap" in call.own,
        "sinks": "s_aux" in call.own,
    }


def lacks(name: str, needs: Needs) -> str | None:
    """Why the kernel can't meet `needs` here; None if it can."""
    kernel = KERNELS[name]
    if needs.device not in kernel.dtypes:
        return f"no {needs.device}"
    if needs.dtype not in kernel.dtypes[needs.device]:
        return f"no {needs.dtype} on {needs.device}"
    if needs.device == "cuda" and needs.head_dim not in kernel.head_dims:
        return f"no head_dim {needs.head_dim}"
    if needs.device == "cuda" and _capability() < kernel.capability:
        return "no compute capability below {}.{}".format(*kernel.capability)
    missing = kernel.missing()
    return lacks_feature(name, needs) or (missing and f"needs {missing}")


def _capability() -> tuple[int, int]:
    """That of the current CUDA device; without one, beyond all."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else (99, 0)


def lacks_feature(name: str, needs: Needs) -> str | None:
    """The first feature in `needs` that the kernel hasn't anywhere; None if it has all of them."""
    lacking = (f"no {f}" for f in FEATURES if getattr(needs, f) and not getattr(KERNELS[name], f))
    return next(lacking, None)


@cache
def choose(name: str, needs: Needs) -> str:
    """The kernel `name`; for `auto`, the first of `AUTO` that meets `needs`.

    Raises:
        SurgeryError: the kernel can't meet `needs`. The message names the kernels that can.
    """
    reasons = {kernel: lacks(kernel, needs) for kernel in KERNELS}
    able = [kernel for kernel, reason in reasons.items() if reason is None]
    chosen = next((k for k in able if k in AUTO), name) if name == "auto" else name
    if chosen not in able:
        summary = "; ".join(f"{kernel}: {reason}" for kernel, reason in reasons.items() if reason)
        others = f"use {' or '.join(able)}" if able else "no kernel can"
        raise SurgeryError(f"flash_attention kernel {name!r} can't do {needs}: {others} ({summary})")
    log.info("attention (%s) runs on the %s kernel", needs, chosen)
    return chosen


def run(name: str | None, call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by document with the kernel `name`; None: the model's own. Shapes as in `sdpa.stock`."""
    return KERNELS[chosen(name, call, Needs.of(call, query, value))].run(call, query, key, value)


def chosen(name: str | None, call: AttentionCall, needs: Needs) -> str:
    """The kernel that computes a call; of the model's own kernels (None) the one for its lengths."""
    if name is not None:
        return _choice(name, *needs)
    return _own(call.stock, call.documents.alike, *needs)


@torch.compiler.assume_constant_result  # a graph contains the one kernel
def _choice(name: str, *needs: Any) -> str:
    return choose(name, Needs(*needs))


@torch.compiler.assume_constant_result
def _own(stock: str, alike: bool, *needs: Any) -> str:
    """`sdpa`, or, where lengths differ, SDPA's flash kernel for all of them at once."""
    varlen_can = stock == "sdpa" and lacks("varlen", Needs(*needs)) is None
    return "varlen" if varlen_can and not alike else "sdpa"


def table() -> str:
    """The kernels and their features, as text."""
    columns = ["kernel", "here", "cpu", "cuda", "head_dim", *FEATURES, "varlen"]
    rows = [columns]
    for name, kernel in KERNELS.items():
        flags = ["yes" if getattr(kernel, feature) else "no" for feature in FEATURES]
        dtypes = [",".join(kernel.dtypes.get(device, ["no"])) for device in ("cpu", "cuda")]
        sizes = kernel.head_dims
        every = f", every {sizes.step}th" if sizes.step > 1 else ""
        rows.append([name, _here(kernel), *dtypes, f"{sizes[0]}..{sizes[-1]}{every}", *flags, "yes"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def _here(kernel: Kernel) -> str:
    """`yes` if it runs on this machine, else what it needs."""
    if missing := kernel.missing():
        return f"needs {missing}"
    return "yes" if "cpu" in kernel.dtypes or torch.cuda.is_available() else "needs CUDA"
