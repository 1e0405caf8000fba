"""Transformers' `AutoModel` classes load models after surgery once this module is imported.

`import cadenza.models` imports it. The remote code in a saved folder imports the same names from here.
"""

from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import snapshot_download
from transformers import AutoConfig, PreTrainedConfig

from cadenza.models.saved import load_with
from cadenza.surgery.saving import AUTO_CLASSES, MODEL_TYPE


class CadenzaConfig(PreTrainedConfig):
    """The config of a model whose weights stock code would misinterpret."""

    model_type = MODEL_TYPE


class Loader:
    """What an `AutoModel` class calls for a `CadenzaConfig`; it returns a stock model after surgery."""

    config_class = CadenzaConfig
    auto: Any

    @classmethod
    def from_pretrained(cls, folder: Any, *args: Any, config: PreTrainedConfig, **options: Any) -> Any:
        """The model in `folder`; see `cadenza.models.load`."""
        for unused in ("trust_remote_code", "adapter_kwargs", "_from_auto"):
            options.pop(unused, None)
        return load_with(config.to_dict(), _local(folder, options), cls.auto, **options)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Do nothing: transformers calls this for remote code, but a saved model writes its own record."""


def _local(folder: Any, options: dict[str, Any]) -> str:
    """The folder itself, or the snapshot of a Hub name; removes from `options` what is meant for the Hub."""
    known = ("revision", "cache_dir", "force_download", "token", "local_files_only")
    hub_options = {key: options.pop(key) for key in known if key in options}
    for unused in ("proxies", "subfolder", "code_revision"):
        options.pop(unused, None)
    return str(folder) if Path(folder).is_dir() else snapshot_download(folder, **hub_options)


def _register() -> None:
    AutoConfig.register(MODEL_TYPE, CadenzaConfig, exist_ok=True)
    for name in AUTO_CLASSES:
        auto = getattr(transformers, name)
        loader = type(name.replace("Auto", "Cadenza"), (Loader,), {"auto": auto, "__module__": __name__})
        globals()[loader.__name__] = loader
        auto.register(CadenzaConfig, loader, exist_ok=True)


_register()
