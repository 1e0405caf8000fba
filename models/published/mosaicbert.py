"""Read and write the published layout of MosaicBERT (mosaicml/mosaic-bert-base and its descendants)."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from cadenza.algorithms import GLU, ALiBi, VocabPadding
from cadenza.models.errors import ModelError
from cadenza.models.published.files import PICKLED, read_config, read_weights
from cadenza.surgery.ledger import history

# The bias of padded words: far below any logit, yet finite in float16; its softmax is exactly 0.
NEVER = torch.finfo(torch.float16).min / 2
RENAMED = {
    ".mlp.gated_layers.": ".intermediate.dense.",
    ".mlp.wo.": ".output.dense.",
    ".mlp.layernorm.": ".output.LayerNorm.",
}
PROJECTIONS = ("query", "key", "value")
WORDS = "bert.embeddings.word_embeddings.weight"
HEAD, BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
SURGERIES = {str(surgery.entry) for surgery in (ALiBi(), GLU())}
NOT_OF_BERT = ("architectures", "dtype", "model_type", "transformers_version")  # fields of `config.json`


def load_mosaicbert(folder: str | Path, trusted: bool = False) -> BertForMaskedLM:
    """A published MosaicBERT (arXiv 2312.17482) as stock BERT after `alibi` and `glu`, with the same logits.

    The weights, 142 tensors of a 12-layer model, are in `pytorch_model.bin` or `model.safetensors`, beside
    `config.json`; the remote code there isn't run. The vocabulary includes the padded words of the published
    embedding. For another head, `save` the model and `load` it with that head.

    Args:
        trusted: read `pytorch_model.bin` even with torch before 2.10, where a file can make torch run code.

    Raises:
        ModelError: a file is missing or has another layout; the message names the file and what differs.
    """
    folder = Path(folder)
    published = read_weights("load_mosaicbert", folder, trusted)
    model = BertForMaskedLM(_config(folder, published))
    ALiBi().operate(model)
    GLU().operate(model)
    try:
        model.load_state_dict(_from_published(published), strict=True)
    except RuntimeError as error:
        raise ModelError(f"load_mosaicbert: {folder} isn't in MosaicBERT's layout: {error}") from error
    return model.eval()


def save_mosaicbert(model: BertForMaskedLM, folder: str | Path) -> Path:
    """Write a masked LM of BERT after `alibi` and `glu` in the published layout, for programs that read it.

    Use `save` for all other purposes. The layout has no field for the padded words of `vocab_padding`: they
    get a bias of -32752.

    Raises:
        ModelError: the model doesn't have MosaicBERT's architecture.
    """
    changes = {str(entry) for entry in history(model) if not entry.keeps_outputs}
    padding = {str(entry) for entry in history(model) if entry.name == VocabPadding.__name__}
    if not isinstance(model, BertForMaskedLM) or changes - padding != SURGERIES:
        raise ModelError(
            f"save_mosaicbert: {type(model).__name__} after {', '.join(sorted(changes)) or 'no surgery'} "
            f"is not a MosaicBERT; it must be BertForMaskedLM after {' and '.join(sorted(SURGERIES))}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(_to_published(model), folder / PICKLED)
    fields = {**model.config.to_diff_dict(), "alibi_starting_size": model.config.max_position_embeddings}
    fields["vocab_size"] = model.state_dict()[WORDS].shape[0]
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return folder


def _config(folder: Path, published: dict[str, Tensor]) -> BertConfig:
    """BERT's own fields of `config.json`, with the vocabulary size of the published embedding."""
    fields = read_config("load_mosaicbert", folder)
    if WORDS not in published:
        raise ModelError(f"load_mosaicbert: {folder} isn't in MosaicBERT's layout: it has no {WORDS}")
    known = BertConfig().to_dict()
    kept = {name: value for name, value in fields.items() if name in known and name not in NOT_OF_BERT}
    return BertConfig(**{**kept, "vocab_size": published[WORDS].shape[0]})


def _from_published(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by stock BERT's names; a name that isn't of the layout is kept, and refused at loading."""
    stock: dict[str, Tensor] = {}
    for name, tensor in published.items():
        before, wqkv, kind = name.partition(".Wqkv.")
        if wqkv:  # (3 hidden, hidden) or (3 hidden,)
            parts = tensor.chunk(3)
            stock |= {f"{before}.{p}.{kind}": part for p, part in zip(PROJECTIONS, parts, strict=True)}
        else:
            stock[_renamed(name, RENAMED)] = tensor
    words = stock[WORDS]
    if not torch.equal(stock.setdefault(HEAD, words), words):
        raise ModelError(f"load_mosaicbert: {HEAD} isn't tied to {WORDS}")
    if BIAS in stock:
        stock["cls.predictions.bias"] = stock[BIAS]
    return stock


def _to_published(model: Any) -> dict[str, Tensor]:
    """The tensors of `model` by their published names, on the CPU."""
    stock = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    del stock["cls.predictions.bias"]
    real = getattr(model.cls.predictions.decoder, "real_vocabulary", None)
    if real is not None:  # `VocabPadding` cuts the logits of the other words off
        stock[BIAS] = torch.cat([stock[BIAS][:real], torch.full_like(stock[BIAS][real:], NEVER)])
    published: dict[str, Tensor] = {}
    for name, tensor in stock.items():
        before, query, kind = name.partition(".query.")
        if query:
            parts = [stock[f"{before}.{p}.{kind}"] for p in PROJECTIONS]
            published[f"{before}.Wqkv.{kind}"] = torch.cat(parts)
        elif ".attention.self." not in name:
            published[_renamed(name, {new: old for old, new in RENAMED.items()})] = tensor
    return published


def _renamed(name: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        if ".attention." not in name and old in name:
            return name.replace(old, new)
    return name
