"""Transformers' `AutoModel` classes for models with surgeries: `import cadenza.models` is enough.

The folder's remote code imports the same names from here.
"""

from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from transformers import AutoConfig, PreTrainedConfig

from cadenza.models.saved import load_with
from cadenza.surgery.saving import AUTO_CLASSES, MODEL_TYPE


class CadenzaConfig(PreTrainedConfig):
    """The config in a folder whose weights stock code would read wrongly."""

    model_type = MODEL_TYPE


class Loader:
    """What an `AutoModel` class finds for a `CadenzaConfig`: it returns the stock model after surgery."""

    config_class = CadenzaConfig
    auto: Any

    @classmethod
    def from_pretrained(cls, folder: Any, *args: Any, config: PreTrainedConfig, **options: Any) -> Any:
        """See `cadenza.models.load`."""
        for known in ("trust_remote_code", "adapter_kwargs", "_from_auto"):
            options.pop(known, None)
        return load_with(config.to_dict(), _local(folder, options), cls.auto, **options)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Asked of remote code by transformers; there's nothing to note, since models record themselves."""


def _local(folder: Any, options: dict[str, Any]) -> str:
    """A folder as it is; of a Hub name, the snapshot."""
    asked = {k: options.pop(k) for k in ("revision", "cache_dir", "force_download", "token") if k in options}
    local_only = options.pop("local_files_only", False)
    for unused in ("proxies", "subfolder", "code_revision"):
        options.pop(unused, None)
    if Path(folder).is_dir():
        return str(folder)
    return snapshot_download(folder, local_files_only=local_only, **asked)


def _register() -> None:
    AutoConfig.register(MODEL_TYPE, CadenzaConfig, exist_ok=True)
    for name in AUTO_CLASSES:
        auto = getattr(transformers, name)
        loader = type(name.replace("Auto", "Cadenza"), (Loader,), {"auto": auto, "__module__": __name__})
        globals()[loader.__name__] = loader
        auto.register(CadenzaConfig, loader, exist_ok=True)


_register()
