"""The checkpoint of a LoRA run as an adapter, which peft reads, or merged into the model that it adapts.

A checkpoint of Composer holds the adapters alone, and peft's config, which names the model.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from cadenza.models.errors import ModelError, in_short
from cadenza.models.saved import SURGERIES
from cadenza.surgery.checkpoint import parse, safe_weights, saved_algorithms
from cadenza.surgery.errors import CheckpointError

QUANTIZED = (
    "PostTrainingQuantization"  # it rounds the weights that adapters are merged into; those stay as they are
)


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


def merged(state: dict[str, Any], name: str) -> Any:
    """The adapted model, with the adapters of `state` added to its weights in full precision.

    Raises:
        CheckpointError: the run's model was new, or a surgery changed what it computes.
        ModelError: the model that the adapters belong to can't be loaded.
    """
    _refuse_other_outputs(state, name)
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError("export: a merge needs peft: pip install 'cadenza[lora]'") from error
    base = _base(state, name)
    with tempfile.TemporaryDirectory() as adapter:
        write_adapter(state, Path(adapter))
        adapted: Any = PeftModel.from_pretrained(base, adapter)
        return adapted.merge_and_unload()


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


def _refuse_other_outputs(state: dict[str, Any], name: str) -> None:
    """Raise if the model was changed by more than surgeries that keep outputs, and quantization."""
    played = [parse(text) for key, text in saved_algorithms(state).items() if key in SURGERIES]
    changed = [each for each, _ in played if each != QUANTIZED and not SURGERIES[each].keeps_outputs]
    if changed:
        right = "export the adapters without --merge, and apply the surgeries to the model"
        raise CheckpointError(f"{name}: {', '.join(changed)} changed the outputs of the model; {right}")


def _entry(state: dict[str, Any]) -> dict[str, Any]:
    return (state.get("integrations") or {}).get("huggingface", {}).get("model", {})
