"""Saving: a model with surgeries behind it writes a folder that can't be mistaken for a stock one.

`config.json` gets the record of the surgeries. Where stock code would compute something else from the
weights, it also gets a model type of its own and a file of remote code, so that `AutoModel` either finds
cadenza or stops.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.history import history, parse
from cadenza.surgery.retype import mix, unmix

MODEL_TYPE = "cadenza"
STUB = "cadenza_remote"
AUTO_CLASSES = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
)

REMOTE_CODE = '''\
"""The model in this folder was changed by surgery: its weights mean something else to stock code."""

try:
    from cadenza.models.auto import *  # noqa: F403
except ImportError as error:
    raise ImportError(
        "this model needs the package cadenza, version {version} or later, which its README.md names; "
        "without it, it would compute other outputs than it was trained to"
    ) from error
'''


class SavesSurgeries:
    """A Hugging Face model whose `save_pretrained` writes its surgeries down."""

    def save_pretrained(
        self, save_directory: Any, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        if kwargs.pop("push_to_hub", False):
            raise SurgeryError("push_to_hub=True would upload too early; call model.push_to_hub(...)")
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            write_record(self, Path(save_directory))


def write_record(model: Any, folder: Path) -> None:
    """Put the surgeries of `model` on record in `folder/config.json`, with a stub beside it if needed."""
    path = folder / "config.json"
    fields = with_record(json.loads(path.read_text(encoding="utf-8")), model)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if fields["model_type"] == MODEL_TYPE:
        code = REMOTE_CODE.replace("{version}", version("cadenza"))
        (folder / f"{STUB}.py").write_text(code, encoding="utf-8")


def with_record(fields: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """`fields`, the config of `model` as a mapping, with the record of its surgeries."""
    entries = history(model)
    record = {
        "model_type": fields["model_type"],
        "surgeries": dict(parse(entry.surgery) for entry in entries),
        "version": version("cadenza"),
    }
    fields = {**fields, "cadenza": record}
    if all(entry.keeps_outputs for entry in entries):
        return fields
    classes = {auto: f"{STUB}.{auto.replace('Auto', 'Cadenza')}" for auto in AUTO_CLASSES}
    auto_map = {"AutoConfig": f"{STUB}.CadenzaConfig", **classes}
    return {**fields, "model_type": MODEL_TYPE, "auto_map": auto_map}


def outermost(model: nn.Module) -> list[PreTrainedModel]:
    """The Hugging Face models in `model` that aren't part of another."""
    if isinstance(model, PreTrainedModel):
        return [model]
    return [host for child in model.children() for host in outermost(child)]


def start_saving(model: nn.Module) -> None:
    """Let the Hugging Face models in `model` write their surgeries down when they are saved."""
    for host in outermost(model):
        if not isinstance(host, SavesSurgeries):
            mix(host, SavesSurgeries)


def stop_saving(model: nn.Module) -> None:
    """Give those models their stock `save_pretrained` back that have no surgery left."""
    for host in outermost(model):
        if not history(host):
            unmix(host, SavesSurgeries)
