"""The published layout of MosaicBERT (mosaicml/mosaic-bert-base and its descendants), read and written."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from cadenza.algorithms import GLU, ALiBi, VocabPadding
from cadenza.algorithms.vocab_padding import NEVER
from cadenza.models.errors import ModelError
from cadenza.surgery.checkpoint import unsafe_pickles
from cadenza.surgery.history import history

WEIGHTS = "pytorch_model.bin"
RENAMED = {
    ".mlp.gated_layers.": ".intermediate.dense.",
    ".mlp.wo.": ".output.dense.",
    ".mlp.layernorm.": ".output.LayerNorm.",
}
PROJECTIONS = ("query", "key", "value")
WORDS, HEAD, BIAS = (
    "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
)
SURGERIES = {repr(ALiBi()), repr(GLU())}
FOREIGN = ("architectures", "dtype", "model_type", "transformers_version")  # of the config: not the model's


def load_mosaicbert(folder: str | Path, trusted: bool = False) -> BertForMaskedLM:
    """A MosaicBERT as it was published, as stock BERT after `alibi` and `glu`: the same logits.

    The 142 tensors of a 12-layer model (arXiv 2312.17482) are in `pytorch_model.bin` or `model.safetensors`,
    beside `config.json`; the remote code there isn't run. All words of the published table, the padded
    ones too, are words here. For another head, `save` it and `load` it with one.

    Args:
        trusted: read `pytorch_model.bin` although torch, before 2.10, can be made to run code by it.

    Raises:
        ModelError: a file is missing or isn't of this layout; the message names it, and what differs.
    """
    folder = Path(folder)
    published = _read(folder, trusted)
    model = BertForMaskedLM(_config(folder, published))
    ALiBi().operate(model)
    GLU().operate(model)
    try:
        model.load_state_dict(_ours(published), strict=True)
    except RuntimeError as error:
        raise ModelError(f"load_mosaicbert: {folder} isn't in MosaicBERT's layout: {error}") from error
    return model.eval()


def save_mosaicbert(model: BertForMaskedLM, folder: str | Path) -> Path:
    """Write a masked LM of BERT after `alibi` and `glu` in the layout that MosaicBERT was published in.

    For programs that read it; `save` is for everything else. Padded words of `vocab_padding`, which that
    layout doesn't know, get a bias of -32752.

    Raises:
        ModelError: the model isn't of MosaicBERT's architecture.
    """
    behind = {entry.surgery for entry in history(model) if not entry.keeps_outputs}
    padded = {text for text in behind if text.startswith(f"{VocabPadding.__name__}(")}
    if not isinstance(model, BertForMaskedLM) or behind - padded != SURGERIES:
        raise ModelError(
            f"save_mosaicbert: {type(model).__name__} after {', '.join(sorted(behind)) or 'no surgery'} "
            f"is no MosaicBERT; that's BertForMaskedLM after {' and '.join(sorted(SURGERIES))}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(_theirs(model), folder / WEIGHTS)
    fields = {**model.config.to_diff_dict(), "alibi_starting_size": model.config.max_position_embeddings}
    fields.pop("unpadded_vocab_size", None)
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return folder


def _read(folder: Path, trusted: bool) -> dict[str, Tensor]:
    there = [path for name in ("model.safetensors", WEIGHTS) if (path := folder / name).is_file()]
    if not there:
        raise ModelError(f"load_mosaicbert: {folder} holds neither {WEIGHTS} nor model.safetensors")
    if there[0].name == WEIGHTS and not trusted and (reason := unsafe_pickles()):
        raise ModelError(f"load_mosaicbert: {there[0]}: {reason}, or pass trusted=True")
    try:
        if there[0].suffix == ".safetensors":
            return load_file(there[0])
        return torch.load(there[0], map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, SafetensorError) as error:
        raise ModelError(f"load_mosaicbert: {there[0]} can't be read: {error}") from error


def _config(folder: Path, published: dict[str, Tensor]) -> BertConfig:
    """BERT's own fields of `config.json`, with as many words as the table has."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"load_mosaicbert: there is no {file}; it is published beside the weights")
    if WORDS not in published:
        raise ModelError(f"load_mosaicbert: {folder} isn't in MosaicBERT's layout: it has no {WORDS}")
    fields, known = json.loads(file.read_text(encoding="utf-8")), BertConfig().to_dict()
    kept = {name: value for name, value in fields.items() if name in known and name not in FOREIGN}
    return BertConfig(**{**kept, "vocab_size": published[WORDS].shape[0]})


def _ours(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stock BERT's names; what isn't of the layout keeps its name, and is refused with it."""
    ours: dict[str, Tensor] = {}
    for name, tensor in published.items():
        before, wqkv, kind = name.partition(".Wqkv.")
        if wqkv:
            parts = tensor.chunk(3)
            ours |= {f"{before}.{p}.{kind}": part for p, part in zip(PROJECTIONS, parts, strict=True)}
        else:
            ours[_renamed(name, RENAMED)] = tensor
    words = ours[WORDS]
    if not torch.equal(ours.setdefault(HEAD, words), words):
        raise ModelError(f"load_mosaicbert: {HEAD} isn't tied to {WORDS}")
    if BIAS in ours:
        ours["cls.predictions.bias"] = ours[BIAS]
    return ours


def _theirs(model: Any) -> dict[str, Tensor]:
    """The published names, on the CPU."""
    ours = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    del ours["cls.predictions.bias"]
    real = getattr(model.cls.predictions.decoder, "real_vocabulary", None)
    if real is not None:  # what `VocabPadding` does in the forward pass
        ours[BIAS] = torch.cat([ours[BIAS][:real], torch.full_like(ours[BIAS][real:], NEVER)])
    theirs: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        before, query, kind = name.partition(".query.")
        if query:
            theirs[f"{before}.Wqkv.{kind}"] = torch.cat([ours[f"{before}.{p}.{kind}"] for p in PROJECTIONS])
        elif ".attention.self." not in name:
            theirs[_renamed(name, {new: old for old, new in RENAMED.items()})] = tensor
    return theirs


def _renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if ".attention." not in name and old in name:
            return name.replace(old, new)
    return name
