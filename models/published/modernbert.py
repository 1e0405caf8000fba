"""Read and write the published layout of ModernBERT (answerdotai/ModernBERT-base, Ettin, mmBERT).

1. `modernbert_config` turns the published config into BERT's and a list of surgeries, or refuses it.
2. Stock BERT after these surgeries gets the tensors by the names in `_names`; Wqkv is cut in three.
3. `save_modernbert` goes the other way: transformers' own ModernBERT, built without memory, takes the tensors
   and writes the folder. So a tensor that it lacks, or doesn't know, is an error.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, BertForMaskedLM

from cadenza.models.errors import ModelError, in_short
from cadenza.models.published.files import read_config, read_weights
from cadenza.models.published.modernbert_config import from_bert, to_bert
from cadenza.surgery.ledger import history
from cadenza.surgery.retype import stock_class
from cadenza.surgery.saving import refuse_adapters

SHOWN = 4
NEEDED = {"GLU", "Rotary", "PreNorm", "NoBias"}
ALLOWED = NEEDED | {"SlidingWindow", "VocabPadding"}
PROJECTIONS = ("query", "key", "value")
WORDS, BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias"
TABLE, DECODER = "model.embeddings.tok_embeddings.weight", "decoder.weight"
TWICE = {"cls.predictions.decoder.weight": WORDS, "cls.predictions.bias": BIAS}  # tied in BERT


def load_modernbert(folder: str | Path, trusted: bool = False) -> BertForMaskedLM:
    """A published ModernBERT (arXiv 2412.13663) as stock BERT after surgeries, with the same logits.

    The surgeries are `glu`, `rotary`, `pre_norm`, `no_bias` and `sliding_window`. The weights are those of
    `ModernBertForMaskedLM`, in `model.safetensors` or `pytorch_model.bin` beside `config.json`, and keep
    their dtype. For another head, `save` the model and `load` it with that head.

    Args:
        trusted: read `pytorch_model.bin` even with torch before 2.10, where a file can make torch run code.

    Raises:
        ModelError: a file is missing or has another layout, or the config has a field that these surgeries
            can't express; the message names the file, and the field or the tensors.
    """
    folder = Path(folder)
    config, surgeries = to_bert(folder, read_config("load_modernbert", folder))
    published = read_weights("load_modernbert", folder, trusted)
    model: Any = BertForMaskedLM(config)
    for surgery in surgeries:
        surgery.operate(model)
    try:
        stock = _from_published(published, _names(config.num_hidden_layers, BIAS in model.state_dict()))
        model.to(stock[WORDS].dtype).load_state_dict(stock, strict=True)
    except (ModelError, RuntimeError) as error:
        raise ModelError(
            f"load_modernbert: {folder} isn't in ModernBERT's layout: {in_short(error)}"
        ) from error
    return model.eval()


def save_modernbert(model: BertForMaskedLM, folder: str | Path) -> Path:
    """Write a masked LM of BERT after `load_modernbert`'s surgeries as stock transformers' ModernBERT.

    `AutoModelForMaskedLM.from_pretrained(folder)` computes the same logits, without cadenza. The padded words
    of `vocab_padding` are left out. Use `save` for all other purposes.

    Raises:
        ModelError: the model doesn't have ModernBERT's architecture. Nothing is written then.
        SurgeryError: `model` holds adapters of peft.
    """
    changes = {entry.name: entry.options for entry in history(model) if not entry.keeps_outputs}
    if not isinstance(model, BertForMaskedLM) or not NEEDED <= changes.keys() <= ALLOWED:
        done = ", ".join(sorted(changes)) or "no surgery"
        raise ModelError(
            f"save_modernbert: {stock_class(model).__name__} after {done} "
            f"is not a ModernBERT; it must be BertForMaskedLM after {', '.join(sorted(NEEDED))}, and "
            "SlidingWindow where layers have a window"
        )
    refuse_adapters(model)
    try:
        published = _to_published(model)
        inner = published["model.layers.0.mlp.Wo.weight"].shape[1]
        config = from_bert(model.config, changes, len(published[TABLE]), inner)
    except ModelError as error:
        raise ModelError(f"save_modernbert: {error}") from error
    with torch.device("meta"):
        stock = AutoModelForMaskedLM.from_config(config)
    stock.load_state_dict(published, strict=True, assign=True)
    stock.save_pretrained(folder)
    return Path(folder)


def _names(layers: int, bias: bool) -> dict[str, str]:
    """The published names by those of BERT after `pre_norm`, which moves norms; Wqkv by its module."""
    names = {
        WORDS: TABLE,
        "bert.embeddings.LayerNorm.weight": "model.embeddings.norm.weight",
        f"bert.encoder.layer.{layers - 1}.output.LayerNorm.weight": "model.final_norm.weight",
        "cls.predictions.transform.dense.weight": "head.dense.weight",
        "cls.predictions.transform.LayerNorm.weight": "head.norm.weight",
        **({BIAS: "decoder.bias"} if bias else {}),
    }
    for number in range(layers):
        ours, theirs = f"bert.encoder.layer.{number}", f"model.layers.{number}"
        names |= {
            f"{ours}.attention.self": f"{theirs}.attn.Wqkv.weight",  # (3 hidden, hidden)
            f"{ours}.attention.output.dense.weight": f"{theirs}.attn.Wo.weight",
            f"{ours}.intermediate.norm.weight": f"{theirs}.mlp_norm.weight",
            f"{ours}.intermediate.dense.weight": f"{theirs}.mlp.Wi.weight",
            f"{ours}.output.dense.weight": f"{theirs}.mlp.Wo.weight",
        }
        if number:  # the embeddings' norm serves the first attention
            names[f"{ours}.attention.self.norm.weight"] = f"{theirs}.attn_norm.weight"
    return names


def _from_published(published: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The tensors by BERT's names."""
    _refuse_other_tensors(published, {*names.values()})
    if not torch.equal(published.get(DECODER, published[TABLE]), published[TABLE]):
        raise ModelError(f"{DECODER} isn't tied to {TABLE}")
    stock: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        if theirs.endswith("Wqkv.weight"):
            parts = published[theirs].chunk(3)
            stock |= {f"{ours}.{p}.weight": part for p, part in zip(PROJECTIONS, parts, strict=True)}
        else:
            stock[ours] = published[theirs]
    return stock | {copy: stock[of] for copy, of in TWICE.items() if of in stock}


def _refuse_other_tensors(published: dict[str, Tensor], expected: set[str]) -> None:
    missing, unknown = expected - published.keys(), published.keys() - expected - {DECODER}
    for names, what in ((missing, "it lacks"), (unknown, "a ModernBertForMaskedLM doesn't have")):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            raise ModelError(f"{what} {', '.join(sorted(names)[:SHOWN])}{more}")
    dtypes = {tensor.dtype for tensor in published.values()}
    if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
        raise ModelError(f"its dtypes are {', '.join(sorted(map(str, dtypes)))}; there must be one of floats")


def _to_published(model: Any) -> dict[str, Tensor]:
    """The tensors of `model` by their published names, on the CPU, without padded words."""
    stock = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    real = getattr(model.cls.predictions.decoder, "real_vocabulary", None)
    stock |= {name: stock[name][:real] for name in (WORDS, BIAS) if name in stock}
    published: dict[str, Tensor] = {}
    names = _names(model.config.num_hidden_layers, BIAS in stock)
    for ours, theirs in names.items():
        if theirs.endswith("Wqkv.weight"):
            published[theirs] = torch.cat([stock[f"{ours}.{p}.weight"] for p in PROJECTIONS])
        else:
            published[theirs] = stock[ours].contiguous()
    if other := stock.keys() - _from_published(published, names).keys():
        raise ModelError(f"ModernBERT has no {', '.join(sorted(other)[:SHOWN])}")
    return {**published, DECODER: published[TABLE]}
