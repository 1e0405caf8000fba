"""The table of attention kernels and their features; `python -m cadenza.attention.kernels` prints it."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor

from cadenza.attention.call import AttentionCall
from cadenza.attention.kernels import flash, flex, sdpa, varlen
from cadenza.surgery.errors import SurgeryError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A kernel and its features.

    Args:
        run: computes attention by document; shapes as in `cadenza.attention.kernels.sdpa.stock`.
        dtypes: the dtypes of query, key and value, by device.
        head_dims: the head sizes on CUDA; on a CPU any size works.
        alibi, window, causal, dropout, anchor, softcap, sinks: whether it supports them.
        module: the Python module that it needs besides torch.
        torch: the first version of torch that has it.
    """

    run: Callable[..., Tensor]
    dtypes: Mapping[str, tuple[str, ...]]
    head_dims: range = range(1, 257)
    alibi: bool = True
    window: bool = True
    causal: bool = True
    dropout: bool = False
    anchor: bool = True
    softcap: bool = False
    sinks: bool = False
    module: str | None = None
    torch: tuple[int, int] = (2, 5)

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
    "flash": Kernel(flash.flash, {"cuda": HALF}, dropout=True, module="flash_attn"),
    "varlen": Kernel(varlen.varlen, {"cuda": HALF}, range(8, 257, 8), alibi=False, dropout=True),
    "flex": Kernel(flex.flex, {"cuda": ALL}, range(16, 257)),  # the smallest matrix in Triton is 16 wide
    "fa4": Kernel(flex.fa4, {"cuda": HALF}, range(16, 257), module="flash_attn.cute", torch=(2, 11)),
    "sdpa": Kernel(  # with a limit of the scores or sinks, the model's own kernel is `eager`
        sdpa.stock, {"cpu": CPU, "cuda": CPU}, range(1, 2**16), dropout=True, softcap=True, sinks=True
    ),
}
"""In the order in which `auto` prefers them. It never chooses `fa4`, which is experimental."""

FEATURES = ("alibi", "window", "causal", "dropout", "anchor", "softcap", "sinks")
MANY = 8  # calls of an attention, beyond which the host is slower than a GPU
AUTO = ("flash", "varlen", "flex", "sdpa")


@dataclass(frozen=True)
class Needs:
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

    @classmethod
    def of(cls, call: AttentionCall, query: Tensor) -> "Needs":
        return cls(
            device=query.device.type,
            dtype=str(query.dtype).removeprefix("torch."),
            head_dim=query.shape[-1],
            **features(call),
        )

    def __str__(self) -> str:
        asked = [f.name for f in fields(self) if getattr(self, f.name) is True]
        return ", ".join([self.device, self.dtype, f"head_dim {self.head_dim}", *asked])


def features(call: AttentionCall) -> dict[str, bool]:
    """Whether a call needs each of `FEATURES`."""
    return {
        "alibi": call.bias is not None,
        "window": call.window is not None,
        "causal": call.causal,
        "dropout": call.dropout > 0,
        "anchor": bool(call.documents.anchors),
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
    missing = kernel.missing()
    return lacks_feature(name, needs) or (missing and f"needs {missing}")


def lacks_feature(name: str, needs: Needs) -> str | None:
    """The first feature in `needs` that the kernel hasn't anywhere; None if it has all of them."""
    lacking = (f"no {f}" for f in FEATURES if getattr(needs, f) and not getattr(KERNELS[name], f))
    return next(lacking, None)


@cache
def choose(name: str, needs: Needs) -> Callable[..., Tensor]:
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
    return KERNELS[chosen].run


def run(name: str | None, call: AttentionCall, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by document with the kernel `name`; None: the model's own. Shapes as in `sdpa.stock`."""
    kernel = _own(call, query) if name is None else choose(name, Needs.of(call, query))
    return kernel(call, query, key, value)


def _own(call: AttentionCall, query: Tensor) -> Callable[..., Tensor]:
    """The model's own kernel, or, where lengths differ, SDPA's flash kernel for all of them at once."""
    if len(call.documents.runs) == 1 or not query.is_cuda:
        return sdpa.stock
    if call.stock == "sdpa" and lacks("varlen", Needs.of(call, query)) is None:
        return varlen.varlen
    if len(call.documents.runs) > MANY:
        _warn_of_many_calls()
    return sdpa.stock


@cache
def _warn_of_many_calls() -> None:
    warnings.warn(
        f"a batch has documents of more than {MANY} lengths, and each layer calls the model's own attention "
        "once for each length, which is slow on a GPU: flash_attention computes all of them at once",
        stacklevel=2,
    )


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
