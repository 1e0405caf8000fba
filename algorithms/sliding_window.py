"""Sliding windows: each token attends to those near it, in all layers but some."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from cadenza.attention.modules import attention_modules, base_models, is_cross_attention
from cadenza.attention.plan import claim
from cadenza.attention.proof.claims import mixes_by_attention
from cadenza.attention.technique import AttentionSurgery
from cadenza.options import Range, option
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.optimizers import Optimizers
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo

__all__ = ["SlidingWindow", "apply_sliding_window"]


@dataclass(repr=False, eq=False)
class SlidingWindow(AttentionSurgery):
    """Lets each token see only the `window` tokens on either side of it, or before it in a decoder.

    Longformer (Beltagy et al., arXiv 2004.05150, section 3.1); with `global_every` ModernBERT (arXiv
    2412.13663, section 2.1.2). A layer with a window of its own keeps the narrower of the two. No parameter
    is added.

    Use it to train on long sequences at a cost that grows with their length, not with its square: on
    `flash_attention` with the kernels of CUDA, which skip what no token sees. The model's own kernel computes
    all scores and masks them. A pretrained model needs more training, because it no longer sees what is far
    away. Caches keep all keys; a static cache is refused.

    Works on any encoder or decoder whose tokens meet in attention alone (docs/families.md).
    """

    window: int = option(
        meaning="The largest distance that is seen, in tokens.", valid=Range("[1, 16777216]")
    )
    global_every: int | None = option(
        None, "The layers 0, n, 2n, ... have no window; null: all layers have one.", Range("[2, 65536]")
    )
    claims = (mixes_by_attention,)

    def survey(self, model: nn.Module) -> set[nn.Module]:
        """The attention modules that get a window, and their base models."""
        found: set[nn.Module] = set()
        for base in base_models(model):
            layers = [module for module in attention_modules(base) if not is_cross_attention(module)]
            if self.global_every is not None:
                self._refuse_shared(base, layers)
                layers = [layer for n, layer in enumerate(layers) if n % self.global_every]
            if layers:
                found |= {base, *layers}
        return found

    def _refuse_shared(self, base: nn.Module, layers: list[nn.Module]) -> None:
        count = base.config.num_hidden_layers
        if len(layers) != count:
            raise SurgeryError(
                f"sliding_window global_every: the {count} layers of {type(base).__name__} share "
                f"{len(layers)} attention modules, so they can't differ; leave it out"
            )

    def edit(self, site: Site) -> Iterator[Undo]:
        if site.module in site.survey:
            yield claim(site.module, window=self.window + 1)


def apply_sliding_window(
    model: nn.Module,
    window: int,
    global_every: int | None = None,
    *,
    optimizers: Optimizers = None,
    prove: bool = True,
) -> Report:
    """Give the attention of `model` a sliding window, in place; see `SlidingWindow`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: `window` or `global_every` is too small; layers that share one attention can't differ;
            or a model of no tested family can't prove that all tokens meet in attention.
        Conflict: `anchor_attention` in mode `anchor` has been applied, whose anchor a window hides.
    """
    return SlidingWindow(window, global_every, prove=prove).operate(model, optimizers)
