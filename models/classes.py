"""The class of a saved model, by its module and name."""

import sys
from functools import reduce
from typing import Any

import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from cadenza.models.errors import ModelError
from cadenza.surgery.retype import is_of_transformers


def saved_class(fields: dict[str, Any]) -> type[PreTrainedModel]:
    """The class that the config `fields` name: of transformers, or of a module that is imported already.

    Nothing is imported here, because a folder may come from anyone. Folders of version 0.1 name no module;
    their classes are of transformers.

    Raises:
        ModelError: there is no such class; the message says what to import.
    """
    (name,) = fields["architectures"]
    module, _, path = fields.get("cadenza", {}).get("class", f"transformers:{name}").partition(":")
    if module.partition(".")[0] == "transformers":
        found, path = getattr(transformers, name, None), name
        reason = f"is not a model of transformers {transformers.__version__}"
    else:
        found = reduce(
            lambda owner, part: getattr(owner, part, None), path.split("."), sys.modules.get(module)
        )
        reason = f"isn't found in the module {module}; import that first, with the class at its top level"
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        raise ModelError(f"load: {path!r} {reason}")
    return found


def class_by(auto: Any, config: PreTrainedConfig, saved: type) -> type[PreTrainedModel]:
    """The class that `auto` makes; transformers' own code can't stand for a `saved` class of someone else."""
    if type(config) not in auto._model_mapping:
        raise ModelError(f"load: transformers has no {auto.__name__} for {config.model_type}")
    found = auto._model_mapping[type(config)]
    if found is not saved and not is_of_transformers(saved):
        raise ModelError(
            f"load: the model is a {saved.__module__}.{saved.__qualname__}, which {auto.__name__} doesn't "
            "make; use cadenza.models.load(folder)"
        )
    return found
