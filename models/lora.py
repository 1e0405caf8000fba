"""LoRA adapters (Hu et al., arXiv 2106.09685) by peft, added to a stock model before any surgery."""

from typing import Any

from composer.models import HuggingFaceModel

from cadenza.models.errors import ModelError, nearest_field
from cadenza.options import Option, Range, problem

RANGES = {
    "r": Range("[1, 65536]", whole=True),
    "lora_alpha": Range("(0, 1000000]"),
    "lora_dropout": Range("[0, 1)"),
}


def lora_config(options: dict[str, Any], causal: bool) -> Any:
    """peft's `LoraConfig` with the fields `options`; the default is all linear layers except the head.

    Raises:
        ModelError: peft isn't installed, or a field is unknown or wrong.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ModelError("model.lora needs peft: pip install 'cadenza[lora]'") from error
    check_ranges(options)
    known = LoraConfig()
    for name in options:
        if not hasattr(known, name):
            hint = nearest_field(name, vars(known))
            raise ModelError(f"model.lora.{name} is not a field of LoraConfig{hint}")
    fields = {"target_modules": "all-linear", "task_type": "CAUSAL_LM" if causal else None, **options}
    try:
        return LoraConfig(**fields)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model.lora: {error}") from error


def check_ranges(options: dict[str, Any]) -> None:
    """Raise `ModelError` for a number that peft would refuse later, or take without a word."""
    for name, valid in RANGES.items():
        if found := problem(f"model.lora.{name}", options.get(name), Option(valid=valid)):
            raise ModelError(found)


def has_adapters(model: HuggingFaceModel) -> bool:
    """Whether `model` has peft's adapters; checkpoints then hold the adapters alone."""
    return getattr(model, "using_peft", False)
