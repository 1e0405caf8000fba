"""The checkpoint of a LoRA run as an adapter, which peft reads, or merged into the model that it adapts.

A checkpoint of Composer holds the adapters alone, and peft's config, which names the model.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from cadenza.models.errors import ModelError, in_short
from cadenza.models.quantized.config import NAME
from cadenza.models.quantized.merging import MergeReport, merge_adapters
from cadenza.models.saved import SURGERIES
from cadenza.surgery.checkpoint import parse, safe_weights, saved_algorithms
from cadenza.surgery.errors import CheckpointError

ONTO = ("full", "dequantized", "quantized")


def is_of_adapters(state: dict[str, Any]) -> bool:
    """Whether the `state` of a checkpoint is that of a LoRA run."""
    return "peft_config" in _entry(state)


def write_adapter(state: dict[str, Any], folder: Path) -> None:
    """Write the adapters in `state` to `folder`, as peft's `save_pretrained` does."""
    config = {**_entry(state)["peft_config"]["content"], "inference_mode": True}
    weights = {
        key.removeprefix("model.").replace(".default.", "."): tensor.contiguous()
        for key, tensor in state["model"].items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merged(state: dict[str, Any], name: str, onto: str = "full") -> tuple[Any, MergeReport | None]:
    """The adapted model, with the adapters of `state` added to its weights, and what storing them did.

    Args:
        onto: the weights that they are added to. "full": those of the model that was adapted, which the run
            may have quantized. "dequantized": the numbers that the run quantized them to, with which the
            adapters were trained; the result is in full precision. "quantized": the same, and the result is
            quantized again.

    Raises:
        CheckpointError: the run's model was new, a surgery changed what it computes, or the run quantized
            nothing to merge onto.
        ModelError: the model that the adapters belong to can't be loaded, or `onto` is unknown.
    """
    if onto not in ONTO:
        raise ModelError(f"export: onto is {onto!r}; it must be one of {', '.join(ONTO)}")
    _refuse_other_outputs(state, name)
    quantization = _quantization(state)
    if onto != "full" and quantization is None:
        raise CheckpointError(f"{name}: its run quantized no weights; merge it onto full")
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("export: a merge needs peft: pip install 'cadenza[lora]'") from error
    base = _base(state, name)
    with tempfile.TemporaryDirectory() as adapter:
        write_adapter(state, Path(adapter))
        adapted: Any = PeftModel.from_pretrained(base, adapter)
    if onto == "full" or quantization is None:
        return adapted.merge_and_unload(), None
    holder = nn.Module()
    holder.model = adapted  # as in the run, so that its globs of module paths match
    quantization.operate(holder)
    return merge_adapters(holder, requantize=onto == "quantized")


def _base(state: dict[str, Any], name: str) -> Any:
    config = _entry(state)["peft_config"]["content"]
    pretrained = config.get("base_model_name_or_path")
    if not pretrained:
        right = "export the adapters without --merge"
        raise CheckpointError(f"{name}: its model was new, so its weights are in no folder; {right}")
    auto: Any = AutoModelForCausalLM if config["task_type"] == "CAUSAL_LM" else AutoModelForMaskedLM
    try:
        return auto.from_pretrained(pretrained, **safe_weights())
    except (OSError, ValueError) as error:
        why = f"{pretrained}, which {name} adapts, can't be loaded: {in_short(error)}"
        raise ModelError(f"export: {why}") from error


def _quantization(state: dict[str, Any]) -> Any:
    """The surgery that quantized the weights in the run, or None."""
    text = saved_algorithms(state).get(NAME)
    return SURGERIES[NAME](**parse(text)[1]) if text else None


def _refuse_other_outputs(state: dict[str, Any], name: str) -> None:
    """Raise if the model was changed by more than surgeries that keep outputs, and quantization."""
    played = [parse(text) for key, text in saved_algorithms(state).items() if key in SURGERIES]
    changed = [each for each, _ in played if each != NAME and not SURGERIES[each].keeps_outputs]
    if changed:
        right = "export the adapters without --merge, and apply the surgeries to the model"
        raise CheckpointError(f"{name}: {', '.join(changed)} changed the outputs of the model; {right}")


def _entry(state: dict[str, Any]) -> dict[str, Any]:
    return (state.get("integrations") or {}).get("huggingface", {}).get("model", {})
