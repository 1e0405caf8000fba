"""FlashAttention: the kernel that computes attention, chosen by what it can express."""

from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from cadenza.surgery.attention import base_models, claim, is_attention, is_cross_attention
from cadenza.surgery.engine import Site
from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.kernels import KERNELS
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Undo
from cadenza.surgery.seam import AttentionSurgery


@dataclass(repr=False, eq=False)
class FlashAttention(AttentionSurgery):
    """Computes attention by document with a kernel of one's choice, and never on padding.

    FlashAttention (Dao et al., arXiv 2205.14135) keeps the scores on chip. A batch without `unpadding` is
    gathered and scattered around each attention; with it, once.

    Args:
        kernel: `flash` (flash-attn 2, CUDA), `flex` (FlexAttention, CUDA), `fa4` (FlexAttention on
            FlashAttention 4, CUDA), `sdpa` (the model's own kernel, called for each run of equally long
            documents), `merged` (torch's flash attention, with an anchor merged in closed form), or `auto`:
            the first of flash, flex and sdpa that can express what is asked.
            `python -m cadenza.surgery.kernels` prints what each can.

    Works on every encoder and decoder on the attention interface. Without caches: undo it to generate.
    """

    kernel: str = "auto"
    keeps_outputs = True

    def __post_init__(self) -> None:
        if self.kernel != "auto" and self.kernel not in KERNELS:
            known = ", ".join(["auto", *KERNELS])
            raise SurgeryError(f"flash_attention kernel {self.kernel!r} is not one of {known}")

    def prepare(self, model: nn.Module) -> Undo:
        missing = None if self.kernel == "auto" else KERNELS[self.kernel].missing()
        if missing:
            raise SurgeryError(
                f"flash_attention kernel {self.kernel!r} needs {missing}, which isn't installed"
            )
        return super().prepare(model)

    def edit(self, site: Site) -> Undo | None:
        ours = is_attention(site.module) and not is_cross_attention(site.module)
        if ours or site.module in base_models(site.module):
            return claim(site.module, kernel=self.kernel)
        return None


def apply_flash_attention(
    model: nn.Module, kernel: str = "auto", *, optimizers: Optimizer | list[Optimizer] | None = None
) -> Report:
    """Let `kernel` compute the attention of `model`, in place; see `FlashAttention`.

    Raises:
        NoEffect: the model has no attention on transformers' attention interface.
        SurgeryError: no such kernel, or its package is missing. What only a batch shows (device, dtype,
            dropout) is checked at the first one.
    """
    return FlashAttention(kernel).operate(model, optimizers)
