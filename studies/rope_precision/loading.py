"""The models that D is measured on: one in each mode."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from cadenza.algorithms import apply_bf16_safe_rope
from cadenza.attention.modules import base_models
from cadenza.attention.rotary.tables import is_rotary, refuse_scaling_by_length
from cadenza.models.errors import ModelError
from cadenza.models.pretrained.loading import pretrained_model
from cadenza.studies.checks import StudyError


@dataclass(frozen=True)
class Mode:
    """How a model is loaded.

    Args:
        exact: apply `bf16_safe_rope`.
        random: draw the weights anew.
    """

    dtype: torch.dtype
    exact: bool = False
    random: bool = False


MODES = {
    "float32": Mode(torch.float32),
    "bfloat16": Mode(torch.bfloat16),
    "bf16_safe_rope": Mode(torch.bfloat16, exact=True),
    "random_bfloat16": Mode(torch.bfloat16, random=True),
}


def load(folder: str, mode: Mode, device: str) -> Any:
    """The model in `folder`, with its own `eager` attention.

    Raises:
        StudyError: it can't be loaded, or lacks weights.
    """
    options = {"dtype": mode.dtype, "attn_implementation": "eager"}
    if mode.random:
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), **options)
        draw(model)
    else:
        try:
            # The proof of `bf16_safe_rope` is sharp in float32 alone.
            dtype = torch.float32 if mode.exact else mode.dtype
            model = pretrained_model(AutoModelForCausalLM, folder, {"dtype": dtype}, "eager")
        except ModelError as error:
            raise StudyError(str(error).replace("model.pretrained", "--model", 1)) from error
    if mode.exact:
        apply_bf16_safe_rope(model)
        model.to(mode.dtype)  # else left alone: the cast would round the frequencies of a stock model
    return model.to(device).eval()


@torch.no_grad()
def draw(model: nn.Module, seed: int = 0) -> None:
    """Draw each matrix of `model` as torch draws that of a new linear layer: uniform, by Kaiming."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)


def outline(folder: str) -> Any:
    """The model in `folder` without weights.

    Raises:
        StudyError: it has no rotary positions.
        SurgeryError: its frequencies depend on the longest position in a batch.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    bases = base_models(model)
    if len(bases) != 1 or not any(map(is_rotary, bases[0].modules())):
        raise StudyError(f"--model: {folder} has no rotary positions on the attention interface to shift")
    refuse_scaling_by_length(bases[0])
    return model
