"""What each attention kernel can express, as data. `python -m cadenza.surgery.kernels` prints it."""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache

import torch
from torch import Tensor

from cadenza.surgery import merged, varlen
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.varlen import Varlen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A kernel and what it can express.

    Args:
        run: computes attention by document; see `cadenza.surgery.varlen`.
        dtypes: of query, key and value, by device.
        head_dims: on CUDA; on a CPU any will do.
        alibi, window, causal, dropout, anchor: whether it takes them.
        module: the Python module that it needs beside torch.
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
    module: str | None = None
    torch: tuple[int, int] = (2, 5)

    def missing(self) -> str | None:
        """What must be installed before it runs here; None: nothing."""
        if tuple(int(part) for part in torch.__version__.split(".")[:2]) < self.torch:
            return "torch>={}.{}".format(*self.torch)
        try:
            found = self.module is None or importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the package around it
            found = False
        return None if found else self.module


ALL = ("float32", "bfloat16", "float16")
HALF = ("bfloat16", "float16")
CPU = (*ALL, "float64")

KERNELS: dict[str, Kernel] = {
    "flash": Kernel(varlen.flash, {"cuda": HALF}, dropout=True, module="flash_attn"),
    "flex": Kernel(varlen.flex, {"cuda": ALL}, range(16, 257)),  # Triton's products have sides of 16 or more
    "fa4": Kernel(varlen.fa4, {"cuda": HALF}, range(16, 257), module="flash_attn.cute", torch=(2, 11)),
    "sdpa": Kernel(varlen.stock, {"cpu": CPU, "cuda": CPU}, range(1, 2**16), dropout=True),
    "merged": Kernel(merged.merged, {"cpu": CPU, "cuda": HALF}, range(8, 257, 8), alibi=False, window=False),
}
"""In the order in which `auto` prefers them. FA4's kernel is experimental, and `merged` is torch's own
flash attention: both have to be asked for."""

FEATURES = ("alibi", "window", "causal", "dropout", "anchor")
AUTO = ("flash", "flex", "sdpa")


@dataclass(frozen=True)
class Needs:
    """What one call of attention asks of a kernel."""

    device: str
    dtype: str
    head_dim: int = 64
    alibi: bool = False
    window: bool = False
    causal: bool = False
    dropout: bool = False
    anchor: bool = False

    @classmethod
    def of(cls, call: Varlen, query: Tensor) -> "Needs":
        return cls(
            device=query.device.type,
            dtype=str(query.dtype).removeprefix("torch."),
            head_dim=query.shape[-1],
            alibi=call.bias is not None,
            window=call.window is not None,
            causal=call.causal,
            dropout=call.dropout > 0,
            anchor=bool(call.documents.anchors),
        )

    def __str__(self) -> str:
        asked = [f.name for f in fields(self) if getattr(self, f.name) is True]
        return ", ".join([self.device, self.dtype, f"head_dim {self.head_dim}", *asked])


def lacks(name: str, needs: Needs) -> str | None:
    """Why the kernel can't meet `needs` here; None: it can."""
    kernel = KERNELS[name]
    if needs.device not in kernel.dtypes:
        return f"no {needs.device}"
    if needs.dtype not in kernel.dtypes[needs.device]:
        return f"no {needs.dtype} on {needs.device}"
    if needs.device == "cuda" and needs.head_dim not in kernel.head_dims:
        return f"no head_dim {needs.head_dim}"
    for feature in FEATURES:
        if getattr(needs, feature) and not getattr(kernel, feature):
            return f"no {feature}"
    missing = kernel.missing()
    return missing and f"needs {missing}"


@cache
def choose(name: str, needs: Needs) -> Callable[..., Tensor]:
    """The kernel `name`; for `auto` the first in the table that meets `needs`.

    Raises:
        SurgeryError: it can't meet them; names those that could.
    """
    reasons = {kernel: lacks(kernel, needs) for kernel in KERNELS}
    able = [kernel for kernel, reason in reasons.items() if reason is None]
    chosen = next((k for k in able if k in AUTO), name) if name == "auto" else name
    if chosen not in able:
        said = "; ".join(f"{kernel}: {reason}" for kernel, reason in reasons.items() if reason)
        others = f"use {' or '.join(able)}" if able else "no kernel can"
        raise SurgeryError(f"flash_attention kernel {name!r} can't do {needs}: {others} ({said})")
    log.info("attention (%s) runs on the %s kernel", needs, chosen)
    return KERNELS[chosen].run


def run(name: str | None, call: Varlen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by document with the kernel `name`; None: the model's own. Shapes as in `varlen.stock`."""
    kernel = varlen.stock if name is None else choose(name, Needs.of(call, query))
    return kernel(call, query, key, value)


def table() -> str:
    """The kernels and what they can express, for people."""
    columns = ["kernel", "here", "cpu", "cuda", "head_dim", *FEATURES, "varlen"]
    rows = [columns]
    for name, kernel in KERNELS.items():
        flags = ["yes" if getattr(kernel, feature) else "no" for feature in FEATURES]
        dtypes = [",".join(kernel.dtypes.get(device, ["no"])) for device in ("cpu", "cuda")]
        rows.append([name, _here(kernel), *dtypes, _span(kernel.head_dims), *flags, "yes"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)


def _here(kernel: Kernel) -> str:
    """Whether it runs on this machine, or what for that is missing."""
    if missing := kernel.missing():
        return f"needs {missing}"
    return "yes" if "cpu" in kernel.dtypes or torch.cuda.is_available() else "needs CUDA"


def _span(numbers: range) -> str:
    every = f", every {numbers.step}th" if numbers.step > 1 else ""
    return f"{numbers[0]}..{numbers[-1]}{every}"


if __name__ == "__main__":
    print(table())
