"""LoRA adapters (Hu et al., arXiv 2106.09685) by peft, on a stock model before any surgery."""

from typing import Any

from composer.models import HuggingFaceModel

from cadenza.models.errors import ModelError, nearest_field


def lora_config(options: dict[str, Any], causal: bool) -> Any:
    """`LoraConfig` of peft from its fields in `options`; by default on all linear layers but the head.

    Raises:
        ModelError: peft isn't installed, or a field is unknown or wrong.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ModelError("model.lora needs peft: pip install 'cadenza[lora]'") from error
    known = LoraConfig()
    for name in options:
        if not hasattr(known, name):
            raise ModelError(
                f"model.lora.{name} is not a field of LoraConfig{nearest_field(name, vars(known))}"
            )
    given = {"target_modules": "all-linear", "task_type": "CAUSAL_LM" if causal else None, **options}
    try:
        return LoraConfig(**given)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model.lora: {error}") from error


def has_adapters(model: HuggingFaceModel) -> bool:
    """Whether peft's adapters are on `model`; its checkpoints then hold nothing else."""
    return getattr(model, "using_peft", False)
