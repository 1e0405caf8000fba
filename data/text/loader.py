"""Loaders for Composer: sequences, collator and token counts as a `DataSpec`."""

from typing import Any

import torch
from composer.core import DataSpec
from composer.utils import dist

from cadenza.data.loading import data_loader
from cadenza.data.text.config import TextConfig
from cadenza.data.text.masking import IGNORED, Batch, MaskedLMCollator
from cadenza.data.text.packing import PackedDocuments, PackedStream
from cadenza.data.text.sequences import TokenizedDocuments, TokenizedStream
from cadenza.data.text.sources import documents
from cadenza.data.text.windows import CausalLMCollator, WindowedDocuments, WindowedStream


def build_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int, packed: bool = False
) -> DataSpec:
    """Masked-LM batches of this rank, to train on or to evaluate.

    Args:
        batch_size: sequences in a batch of this device.
        seed: of the order and of the masks.
        packed: whether rows hold several documents, with `document_ids`; see `cadenza.data.text.packing`.

    Raises:
        DataError: no such source, or fewer sequences than one batch of all devices.
    """
    collator = masked_collator(cfg, tokenizer, train, seed)
    texts = documents(cfg, train, seed)
    options = tokenizer, cfg.max_seq_len, cfg.long_documents == "split"
    if isinstance(texts, list):
        dataset = TokenizedDocuments(texts, *options)
        if packed:
            dataset = PackedDocuments(dataset, cfg.max_seq_len, seed)
    else:
        dataset = (PackedStream if packed else TokenizedStream)(texts, *options, fixed=not train)
    loader = data_loader(cfg, dataset, _counts(texts, dataset), collator, train, batch_size, seed)
    return DataSpec(loader, batch_transforms=collator.mask, get_num_tokens_in_batch=count_tokens)


def masked_collator(cfg: TextConfig, tokenizer: Any, train: bool, seed: int) -> MaskedLMCollator:
    """The collator of a recipe's `data`."""
    ratio = cfg.mlm_probability if train else cfg.eval_mlm_probability
    corruption = cfg.mask_replace_prob, cfg.random_replace_prob
    return MaskedLMCollator(tokenizer, ratio, cfg.max_seq_len, seed, cfg.masking == "whole_word", *corruption)


def build_causal_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int
) -> DataSpec:
    """Causal-LM batches of this rank: windows of documents; arguments and errors as in `build_dataspec`."""
    texts = documents(cfg, train, seed)
    if isinstance(texts, list):
        dataset = WindowedDocuments(texts, tokenizer, cfg, seed)
    else:
        dataset = WindowedStream(texts, tokenizer, cfg, fixed=not train)
    collator = CausalLMCollator(tokenizer, cfg.boundary_loss)
    loader = data_loader(cfg, dataset, _counts(texts, dataset), collator, train, batch_size, seed)
    return DataSpec(loader, get_num_tokens_in_batch=count_tokens)


def _counts(texts: Any, dataset: Any) -> str | None:
    return f"{len(texts)} documents and {len(dataset)} sequences" if isinstance(texts, list) else None


def count_tokens(batch: Batch) -> dict[str, int]:
    """`total`: tokens without padding; `loss_generating`: tokens with a label, which weight the loss."""
    labelled = batch["labels"] != IGNORED
    return {"total": int(batch["attention_mask"].sum()), "loss_generating": int(labelled.sum())}


def unigram_entropy(dataspec: DataSpec) -> float:
    """The entropy, in nats, of the distribution of all maskable tokens in a pass over all ranks' batches.

    The masked tokens are a random sample of the maskable ones. So this is the loss of the best predictor
    without context, fitted to the same text that it is evaluated on.
    """
    loader: Any = dataspec.dataloader
    counts = torch.zeros(1, dtype=torch.int64)  # (largest id so far + 1,)
    for batch in loader:
        tokens = batch["input_ids"][loader.collate_fn.eligible(batch)]
        summed = torch.bincount(tokens, minlength=len(counts))
        summed[: len(counts)] += counts
        counts = summed
    all_counts = torch.nn.utils.rnn.pad_sequence(dist.all_gather_object(counts)).sum(dim=1)
    share = all_counts[all_counts > 0].double() / all_counts.sum()
    return float(-(share * share.log()).sum())
