"""The limits of the device: the rates of a large copy, and of matrix products of the models' sizes."""

from collections.abc import Callable

import torch
from gpu.cases import Setting
from harness import Row, Variant, Work, compare

REPEATS = 20  # in one step, so that the wait for the device is negligible
PRODUCTS = {  # rows, in, out
    "8192 x 8192 x 8192": (8192, 8192, 8192),
    "feed-forward of base": (2**15, 768, 3072),
    "feed-forward of large": (2**14, 1024, 4096),
}
COPIED = 2**30


def ceilings(rounds: int, setting: Setting) -> list[Row]:
    """A row for each product, and one for the copy."""
    sizes = {name: tuple(n // 64 if setting.dry else n for n in size) for name, size in PRODUCTS.items()}
    variants = [_product(name, *size, setting) for name, size in sizes.items()]
    variants.append(_copy(2**16 if setting.dry else COPIED, setting.device))
    return compare("gpu", "ceilings", variants, rounds, setting.dtype)


def summary(found: list[Row]) -> str:
    """The ceilings in one line, to print."""
    *products, copied = found
    shown = ", ".join(f"{row.rate / 1e3:,.1f} TFLOP/s ({row.variant})" for row in products)
    return f"this device: {shown}; {copied.rate:,.0f} GB/s read and written"


def _product(name: str, rows: int, inner: int, columns: int, setting: Setting) -> Variant:
    like = {"device": setting.device, "dtype": setting.dtype}
    a, b = torch.randn(rows, inner, **like), torch.randn(inner, columns, **like)
    out = torch.empty(rows, columns, **like)
    work = Work(REPEATS * 2 * rows * inner * columns, 0)
    return Variant(name, _repeated(lambda: torch.mm(a, b, out=out)), work)


def _copy(size: int, device: str) -> Variant:
    """A copy on the device; its work counts bytes read and written in place of operations."""
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return Variant("copy, in bytes", _repeated(lambda: target.copy_(source)), Work(REPEATS * 2 * size, 0))


def _repeated(step: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        for _ in range(REPEATS):
            step()

    return run
