"""The surgeries that the config of a pretrained model records, as a recipe's `algorithms` spell them."""

from typing import Any

from transformers import PreTrainedConfig

from cadenza.algorithms import REGISTRY
from cadenza.models.errors import ModelError
from cadenza.models.pretrained.loading import is_folder, is_local
from cadenza.models.saved import surgeries_of


def recorded(name: str) -> dict[str, dict[str, Any]]:
    """The options of each technique that the model called `name` was changed by; empty for a stock model.

    A model whose config can't be read counts as a stock model: loading it says why.

    Raises:
        ModelError: a technique or an option that this version doesn't have, or a folder that isn't there.
    """
    is_folder(name)
    try:
        fields, _ = PreTrainedConfig.get_config_dict(name, local_files_only=is_local(name))
    except (OSError, ValueError):
        return {}
    names = {cls: registered for registered, cls in REGISTRY.items()}
    try:
        surgeries = surgeries_of((fields.get("cadenza") or {}).get("surgeries", {}))
    except ModelError as error:
        raise ModelError(f"model.pretrained: {name}: {error}") from error
    return {names[type(surgery)]: dict(surgery.options) for surgery in surgeries}
