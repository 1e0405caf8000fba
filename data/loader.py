"""Loaders for Composer: sequences, collator and token counts as a `DataSpec`."""

from typing import Any

import torch
from composer.core import DataSpec
from composer.utils import dist
from torch.utils.data import DataLoader

from cadenza.data.config import TextConfig
from cadenza.data.documents import CausalLMCollator, WindowedDocuments, WindowedStream
from cadenza.data.errors import DataError
from cadenza.data.masking import IGNORED, Batch, MaskedLMCollator
from cadenza.data.packing import PackedDocuments, PackedStream
from cadenza.data.sequences import EpochSampler, TokenizedDocuments, TokenizedStream
from cadenza.data.sources import documents


def build_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int, packed: bool = False
) -> DataSpec:
    """Masked-LM batches of this rank, to train on or to evaluate.

    Args:
        batch_size: sequences of this device's batch.
        seed: of the order and of the masks.
        packed: whether rows hold several documents, with `document_ids`; see `cadenza.data.packing`.

    Raises:
        DataError: no such source, or fewer sequences than one batch of all devices.
    """
    ratio = cfg.mlm_probability if train else cfg.eval_mlm_probability
    collator = MaskedLMCollator(tokenizer, ratio, cfg.max_seq_len, seed)
    texts = documents(cfg, train, seed)
    options = tokenizer, cfg.max_seq_len, cfg.long_documents == "split"
    if isinstance(texts, list):
        dataset = TokenizedDocuments(texts, *options)
        if packed:
            dataset = PackedDocuments(dataset, cfg.max_seq_len, seed)
        _check_size(dataset, texts, cfg, train, batch_size)
        sampler = EpochSampler(dataset, train, seed)
    else:
        stream = PackedStream if packed else TokenizedStream
        dataset, sampler = stream(texts, *options, fixed=not train), None
    loader = _loader(cfg, dataset, sampler, collator, batch_size, drop_last=train)
    return DataSpec(loader, batch_transforms=collator.mask, get_num_tokens_in_batch=count_tokens)


def build_causal_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int
) -> DataSpec:
    """Causal-LM batches of this rank: windows of documents; arguments and errors as in `build_dataspec`."""
    texts = documents(cfg, train, seed)
    if isinstance(texts, list):
        dataset = WindowedDocuments(texts, tokenizer, cfg, seed)
        _check_size(dataset, texts, cfg, train, batch_size)
        sampler = EpochSampler(dataset, train, seed)
    else:
        dataset, sampler = WindowedStream(texts, tokenizer, cfg, fixed=not train), None
    collator = CausalLMCollator(tokenizer, cfg.boundary_loss)
    loader = _loader(cfg, dataset, sampler, collator, batch_size, drop_last=train)
    return DataSpec(loader, get_num_tokens_in_batch=count_tokens)


def _loader(
    cfg: TextConfig, dataset: Any, sampler: Any, collator: Any, batch_size: int, drop_last: bool
) -> DataLoader:
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=batch_size,
        collate_fn=collator,
        drop_last=drop_last,
        num_workers=cfg.num_workers,
        persistent_workers=cfg.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def count_tokens(batch: Batch) -> dict[str, int]:
    """`total`: tokens without padding; `loss_generating`: tokens with a label, which weigh the loss."""
    labelled = batch["labels"] != IGNORED
    return {"total": int(batch["attention_mask"].sum()), "loss_generating": int(labelled.sum())}


def unigram_entropy(dataspec: DataSpec) -> float:
    """The entropy, in nats, of the distribution of all maskable tokens in a pass over all ranks' batches.

    The masked tokens are a random sample of these, so it's the loss of the best predictor that looks at no
    context, fitted on the very text that it's judged by.
    """
    loader: Any = dataspec.dataloader
    counts = torch.zeros(1, dtype=torch.int64)
    for batch in loader:
        tokens = batch["input_ids"][loader.collate_fn.eligible(batch)]
        seen = torch.bincount(tokens, minlength=len(counts))
        seen[: len(counts)] += counts
        counts = seen
    everywhere = torch.nn.utils.rnn.pad_sequence(dist.all_gather_object(counts)).sum(dim=1)
    share = everywhere[everywhere > 0].double() / everywhere.sum()
    return float(-(share * share.log()).sum())


def _check_size(dataset: Any, texts: list, cfg: TextConfig, train: bool, batch_size: int) -> None:
    needed = batch_size * dist.get_world_size() if train else 1
    if len(dataset) >= needed:
        return
    part = "training" if train else "evaluation"
    raise DataError(
        f"data.source: {cfg.source} gives {len(texts)} documents and {len(dataset)} sequences for {part}; "
        f"a batch takes {needed}"
    )
