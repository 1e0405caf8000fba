"""What an estimate is for: a recipe on so many devices of a kind, in a precision, by micro-batches."""

from dataclasses import dataclass
from typing import Any

import torch

from cadenza.recipe import build
from cadenza.recipe.cpu import precision

DTYPES = {"amp_bf16": torch.bfloat16, "amp_fp16": torch.float16, "amp_fp8": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """One device of a run.

    Args:
        recipe: the checked recipe.
        devices: the world size.
        cuda: whether the devices are CUDA devices.
        precision: fp32, amp_bf16, amp_fp16 or amp_fp8.
        rows: samples of a micro-batch.
        steps: micro-batches of a batch.
    """

    recipe: Any
    devices: int
    cuda: bool
    precision: str
    rows: int
    steps: int

    @classmethod
    def of(cls, recipe: Any, devices: int, cuda: bool) -> "Setting":
        """The setting of `recipe`.

        Raises:
            RecipeError: the batch can't be divided by the devices, or the precision isn't for them.
        """
        train = recipe.train
        batch = build.per_device(train.global_batch_size, devices, "train.global_batch_size")
        precision.check(train.precision, cuda)
        asked = build.microbatch_size(train.device_train_microbatch_size, batch, cuda)
        rows = 1 if isinstance(asked, str) else asked
        chosen = ("amp_bf16" if train.precision == "auto" else train.precision) if cuda else None
        return cls(
            recipe, devices, cuda, chosen or precision.on_cpu(train.precision), rows, -(-batch // rows)
        )

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of autocast; None: float32."""
        return DTYPES.get(self.precision)

    @property
    def searched(self) -> bool:
        """Whether Composer searches the size of a micro-batch as it trains."""
        return self.cuda and self.recipe.train.device_train_microbatch_size == "auto"

    @property
    def sharded(self) -> dict[str, Any] | None:
        """The options of FSDP; None: every device holds the whole model."""
        section = self.recipe.train.parallelism_config
        return next(iter(section.values())) or {} if section else None
