"""Saving a model after surgeries, so that stock code doesn't load the folder as a stock model.

`config.json` gets the record of the surgeries. If stock code would compute other outputs from the weights, it
also gets the model type `cadenza` and a file of remote code: without cadenza, `AutoModel` raises.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from cadenza.surgery.errors import SurgeryError
from cadenza.surgery.ledger import history
from cadenza.surgery.retype import Mixin, Stage, Undo, mix, stock_class, unmix

MODEL_TYPE = "cadenza"
STUB = "cadenza_remote"
HEADS = "CausalLM MaskedLM MultipleChoice QuestionAnswering SequenceClassification TokenClassification"
AUTO_CLASSES = ("AutoModel", *(f"AutoModelFor{head}" for head in HEADS.split()))

REMOTE_CODE = '''\
"""The model in this folder was changed by surgery: stock code would compute other outputs."""

try:
    from cadenza.models.auto import *  # noqa: F403
except ImportError as error:
    raise ImportError(
        "this model needs the package cadenza, version {version} or later (see README.md); stock code would "
        "compute other outputs than those it was trained for"
    ) from error
'''


class SavesSurgeries(Mixin, of="a surgery", stage=Stage.STRUCTURE):
    """A Hugging Face model whose `save_pretrained` records its surgeries."""

    def save_pretrained(
        self, save_directory: Any, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        if kwargs.pop("push_to_hub", False):
            raise SurgeryError(
                "push_to_hub=True uploads before surgeries are recorded; call model.push_to_hub()"
            )
        refuse_adapters(self)
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
        if is_main_process:
            write_record(self, Path(save_directory))


def refuse_adapters(model: Any) -> None:
    """Raise if peft's adapters are in `model`: its weights have other names then, which no loader knows."""
    for path, module in model.named_modules():
        if type(module).__module__.partition(".")[0] == "peft":
            raise SurgeryError(
                f"{path}: {type(module).__name__} holds adapters of peft; merge them (merge_and_unload), or "
                "save the adapters alone (save_pretrained of the PeftModel)"
            )


def write_record(model: Any, folder: Path) -> None:
    """Record the surgeries of `model` in `folder/config.json`, and add the remote code if it is needed."""
    path = folder / "config.json"
    fields = with_record(json.loads(path.read_text(encoding="utf-8")), model)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if fields["model_type"] == MODEL_TYPE:
        code = REMOTE_CODE.replace("{version}", version("cadenza"))
        (folder / f"{STUB}.py").write_text(code, encoding="utf-8")


def with_record(fields: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The config `fields` of `model`, with the record of its surgeries added."""
    entries = history(model)
    stock = stock_class(model)
    record = {
        "class": f"{stock.__module__}:{stock.__qualname__}",
        "model_type": fields["model_type"],
        "surgeries": {entry.name: dict(entry.options) for entry in entries},
        "version": version("cadenza"),
    }
    fields = {**fields, "cadenza": record}
    if all(entry.keeps_outputs for entry in entries):
        return fields
    classes = {auto: f"{STUB}.{auto.replace('Auto', 'Cadenza')}" for auto in AUTO_CLASSES}
    auto_map = {"AutoConfig": f"{STUB}.CadenzaConfig", **classes}
    return {**fields, "model_type": MODEL_TYPE, "auto_map": auto_map}


def outermost(model: nn.Module) -> list[PreTrainedModel]:
    """The Hugging Face models in `model` that aren't part of another one."""
    if isinstance(model, PreTrainedModel):
        return [model]
    return [host for child in model.children() for host in outermost(child)]


def start_saving(model: nn.Module) -> Iterator[Undo]:
    """Make the Hugging Face models in `model` record their surgeries when they are saved."""
    yield lambda: stop_saving(model)
    for host in outermost(model):
        if not isinstance(host, SavesSurgeries):
            mix(host, SavesSurgeries)


def stop_saving(model: nn.Module) -> None:
    """Restore the stock `save_pretrained` of the models in `model` that have no surgery left."""
    for host in outermost(model):
        if not history(host):
            unmix(host, SavesSurgeries)
