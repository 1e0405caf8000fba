"""What bench_gpu measures: the models and the batches."""

import copy
from dataclasses import dataclass, replace

import torch
from gpu.models import EVERY, MODERN, TECHNIQUES, Models, Shape, able, ends, ladder, modernbert, stock
from workloads import Batch, batch

SHAPES = {  # with 2^15 tokens of base the host is the limit in compiled layers
    "modernbert": Shape(768, 12, 22, 1152, 2**15),
    "base": Shape(768, 12, 12, 3072, 2**16),
    "large": Shape(1024, 16, 24, 4096, 2**14, together=3),
}
COLUMNS = {"modernbert": (1024,), "base": (128, 512, 2048), "large": (128, 512, 2048)}
PADDING = {"modernbert": (0.0,), "base": (0.0, 0.5), "large": (0.0, 0.5)}
MODERN_VOCABULARY = 50368  # a multiple of 64 without padding
PADDED = tuple(name for name in EVERY if name != "vocab_padding")


@dataclass(frozen=True)
class Setting:
    """The device and the sizes: a GPU in bfloat16, or for a dry run a CPU with tiny models."""

    dry: bool

    @property
    def device(self) -> str:
        return "cpu" if self.dry else "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.dry else torch.bfloat16

    @property
    def backend(self) -> str:
        return "aot_eager" if self.dry else "inductor"

    def shape(self, name: str) -> Shape:
        tiny = Shape(64, 2, 2, 96, 2**7)
        return replace(tiny, together=SHAPES[name].together) if self.dry else SHAPES[name]

    def columns(self, name: str) -> list[int]:
        return [n // 32 if self.dry else n for n in COLUMNS[name]]


def batches(name: str, setting: Setting) -> dict[str, Batch]:
    """The batches on which the models of a shape are compared, by name."""
    tokens = setting.shape(name).tokens
    return {
        f"{name}, {columns} columns, {padding:.0%} padding": rows(tokens, columns, padding)
        for columns in setting.columns(name)
        for padding in PADDING[name]
    }


def rows(tokens: int, columns: int, padding: float) -> Batch:
    """A batch whose lengths are evenly spread around their mean."""
    shortest = round(columns * (1 - 2 * padding)) or 1
    return batch(torch.linspace(shortest, columns, tokens // columns).round().int().tolist(), columns)


def models(name: str, setting: Setting) -> Models:
    """BERT's `ladder` of techniques; or ModernBERT's `ends`, and those of MosaicBERT in the same shape."""
    shape, longest = setting.shape(name), max(setting.columns(name))
    kernels = able(setting.device, setting.dtype)
    if name != "modernbert":
        yield from ladder(stock(shape, longest, setting.device), EVERY, kernels, setting.backend)
        return
    base = modernbert(shape, longest, setting.device)
    yield "stock", base
    yield from ends(base, _with(base, MODERN), kernels, setting.backend)
    bert = stock(shape, longest, setting.device, MODERN_VOCABULARY)
    for title, model in ends(bert, _with(bert, PADDED), kernels, setting.backend):
        yield f"BERT of its shape: {title}", model


def _with(base, names: tuple[str, ...]):
    """A copy of `base` with the techniques `names`."""
    model = copy.deepcopy(base)
    for name in names:
        TECHNIQUES[name](model)
    return model
