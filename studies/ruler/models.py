"""The models: checkpoints of each, checked before anything runs, and loaded one after another."""

from dataclasses import dataclass
from typing import Any

import torch

from cadenza.data.places import home
from cadenza.models import ModelError
from cadenza.models.pretrained import model_folder
from cadenza.studies.checks import StudyError, causal
from cadenza.studies.glue import weights
from cadenza.studies.ruler.settings import Ruler
from cadenza.surgery.checkpoint import safe_weights

KEY = "model.pretrained: "  # the key of a recipe, with which errors of `model_folder` begin


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of the model called `model`."""

    model: str
    path: str

    @property
    def where(self) -> str:
        """How errors name it."""
        return f"models.{self.model}"


def checkpoints(cfg: Ruler) -> list[Checkpoint]:
    """All checkpoints, those of a model together."""
    return [Checkpoint(name, path) for name, paths in cfg.groups().items() for path in paths]


def tokenizer_of(checkpoint: Checkpoint, length: int) -> Any:
    """The tokenizer of a checkpoint, which must be a causal model that takes `length` tokens.

    Raises:
        StudyError: it isn't; the message names the model.
    """
    try:
        return causal(folder_of(checkpoint), length)
    except StudyError as error:
        raise StudyError(f"{checkpoint.where}: {str(error).removeprefix('model: ')}") from error


def identity(checkpoint: Checkpoint) -> Any:
    """What tells whether the weights or the config were replaced: paths, sizes and times of the files.

    Raises:
        StudyError: the path holds no weights.
    """
    path = home(checkpoint.path)
    if not path.exists():
        if checkpoint.path.startswith((".", "/", "~")) or path.suffix == ".pt":
            raise StudyError(f"{checkpoint.where}: there is no {checkpoint.path}")
        return checkpoint.path  # a name on the Hub
    files = weights.files(path, checkpoint.where)
    files += [config for config in (files[0].parent / "config.json",) if config.is_file()]
    return [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def extrapolated(checkpoint: Checkpoint, lengths: list[int]) -> str | None:
    """A note, if some of `lengths` are beyond the positions that the config of a rotary model states."""
    from transformers import AutoConfig

    stated = getattr(AutoConfig.from_pretrained(folder_of(checkpoint)), "max_position_embeddings", None)
    beyond = [str(length) for length in sorted(lengths) if stated is not None and length > stated]
    if not beyond:
        return None
    return f"{checkpoint.model}: its config states {stated} positions; {', '.join(beyond)} tokens are beyond"


def load(checkpoint: Checkpoint, dtype: str) -> Any:
    """The model on CUDA if there is a device, in eval mode."""
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: Any = AutoModelForCausalLM.from_pretrained(
        folder_of(checkpoint), dtype=getattr(torch, dtype), **safe_weights()
    )
    return found.to(device).eval()


def folder_of(checkpoint: Checkpoint) -> str:
    """The Hugging Face folder of a checkpoint, exported if need be; or its name on the Hub."""
    try:
        return model_folder(checkpoint.path)
    except ModelError as error:
        raise StudyError(f"{checkpoint.where}: {str(error).removeprefix(KEY)}") from error
