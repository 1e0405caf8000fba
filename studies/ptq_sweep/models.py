"""The models: loaded, quantized, placed; and what is read from their folders before."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cadenza.algorithms import apply_post_training_quantization
from cadenza.algorithms.post_training_quantization import dequantize
from cadenza.data.text.prepared.key import key_of
from cadenza.quantization.stored.formats import FORMATS, FourBit
from cadenza.quantization.stored.int8 import Int8
from cadenza.quantization.stored.quantized_linear import Quantized
from cadenza.studies.checks import StudyError, causal
from cadenza.studies.ptq_sweep import texts
from cadenza.studies.ptq_sweep.settings import PLAIN, Sweep
from cadenza.studies.ruler import models as ruler
from cadenza.surgery.checkpoint import safe_weights

VERSION = 1  # raise it when a cell would get other numbers


@dataclass(frozen=True)
class Subject:
    """A model of the study, without weights; `windows` are token ids by the name of the text."""

    cfg: Sweep
    name: str
    label: str
    family: str
    windows: dict[str, Tensor]

    def prompts(self, text: str) -> Tensor:
        """Token ids (prompts, prompt)."""
        return self.windows[text][: self.cfg.prompts, : self.cfg.prompt]

    def settings(self, text: str, *more: Any) -> str:
        """A hash of what a cell on `text` depends on beside its keys: token ids, weights, dtype, `more`."""
        ids = self.windows[text].tolist()
        return key_of(
            {"version": VERSION, "ids": ids, "weights": self._weights, "more": [self._dtype, *more]}
        )

    @cached_property
    def _weights(self) -> Any:
        return ruler.identity(ruler.Checkpoint(self.label, self.name))

    @property
    def _dtype(self) -> list[str]:
        return [self.cfg.dtype, "cuda" if torch.cuda.is_available() else "cpu"]


def subjects(cfg: Sweep) -> list[Subject]:
    """All models, checked before anything is measured.

    Raises:
        StudyError: a model that isn't causal or too short, a text that is too short.
    """
    from transformers import AutoConfig

    if cfg.device_map and importlib.util.find_spec("accelerate") is None:
        raise StudyError("device_map needs accelerate: pip install accelerate")
    length = max(cfg.window, cfg.prompt + max([*cfg.max_new_tokens, cfg.decode_tokens]))
    found = []
    for name, label in cfg.labels().items():
        tokenizer = causal(name, length)
        family = AutoConfig.from_pretrained(name).model_type
        windows = {source: texts.windows(cfg, source, tokenizer) for source in cfg.texts}
        found.append(Subject(cfg, name, label, family, windows))
    return found


def load(cfg: Sweep, name: str, form: str = PLAIN) -> Any:
    """The model in eval mode, on CUDA if there is a device, its linear layers in the format `form`."""
    from transformers import AutoModelForCausalLM

    placed = {"device_map": cfg.device_map} if cfg.device_map else {}
    model: Any = AutoModelForCausalLM.from_pretrained(
        name, dtype=getattr(torch, cfg.dtype), **placed, **safe_weights()
    )
    if not cfg.device_map:
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    places = {str(device) for device in getattr(model, "hf_device_map", {}).values()}
    if offloaded := sorted(places & {"disk", *_host()}):
        raise StudyError(
            f"device_map: a part of {name} is on {', '.join(offloaded)}; it must fit the devices"
        )
    return (model if form == PLAIN else quantized(model, form)).eval()


def _host() -> set[str]:
    return {"cpu"} if torch.cuda.is_available() else set()


def quantized(model: Any, form: str) -> Any:
    """`model`, quantized in place where its layers are.

    The hooks by which accelerate moves inputs between devices hold the stock `forward`; so they are taken
    off before. Put on anew, a hook would write what `weight` reads into the codes, as it places tensors of a
    layer; they are in place, so it is kept from that.
    """
    if not _hooked(model):
        apply_post_training_quantization(model, form)
        return model
    from accelerate.hooks import add_hook_to_module, remove_hook_from_module

    hooks = {module: module._hf_hook for module in model.modules() if hasattr(module, "_hf_hook")}
    remove_hook_from_module(model, recurse=True)
    apply_post_training_quantization(model, form)
    for module, hook in hooks.items():
        module.__dict__.pop("forward", None)  # the stock one, bound, which taking off left there
        hook.init_hook = lambda module: module
        add_hook_to_module(module, hook)
    return model


def _hooked(model: nn.Module) -> bool:
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def simulated(form: str) -> bool:
    """Whether a product unpacks the whole weight here, since no kernel multiplies by the codes."""
    entry = FORMATS.get(form)
    kernel = isinstance(entry, Int8) or (isinstance(entry, FourBit) and torch.cuda.is_available())
    return form != PLAIN and not kernel


def for_generating(model: Any, form: str) -> Any:
    """`model`, with its weights unpacked once for all, where each product would unpack them anyway.

    The numbers are the same (`tests/studies/ptq_sweep/test_models.py`), the steps of generation faster.
    """
    if simulated(form) and not _hooked(model):
        dequantize(model)
    return model


def bits(model: Any) -> float:
    """Bits a weight of the quantized layers, with their statistics; without any, those of the dtype."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Quantized)]
    if not layers:
        return 8.0 * model.dtype.itemsize
    return 8 * sum(m.stored_bytes for m in layers) / sum(m.shape.numel() for m in layers)


def end_tokens(model: Any) -> Sequence[int]:
    """The ids that end a text, by the model's generation config, or else its config."""
    for config in (model.generation_config, model.config):
        if (found := getattr(config, "eos_token_id", None)) is not None:
            return found if isinstance(found, list) else [found]
    return []
