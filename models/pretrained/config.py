"""The config of a pretrained model, without its weights."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from cadenza.models.errors import ModelError, in_short
from cadenza.models.pretrained.loading import is_folder, is_local
from cadenza.models.saved import config_before


def stock_config(name: str, fields: dict[str, Any]) -> Any:
    """The config of the model called `name` before any surgery, as transformers loads it.

    Args:
        name: a folder, in which `config.json` is enough, or a name on the Hub.
        fields: they replace those of the config.

    Raises:
        ModelError: there is no such config.
    """
    source = str(Path(name).expanduser()) if is_folder(name) else name
    local = is_local(name)
    try:
        found, _ = PreTrainedConfig.get_config_dict(source, local_files_only=local)
        if "cadenza" in found:
            return config_before(found, fields)
        return AutoConfig.from_pretrained(source, local_files_only=local, **fields)
    except (OSError, ValueError) as error:
        offline = local and not is_folder(name)
        reason = "it isn't cached, and the Hub doesn't answer" if offline else in_short(error)
        raise ModelError(f"model.pretrained: the config of {name} can't be read ({reason})") from error
