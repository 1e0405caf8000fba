"""Loaders for Composer: sequences, collator and token counts as a `DataSpec`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from composer.core import DataSpec
from composer.utils import dist

from cadenza.data.draws import Drawn
from cadenza.data.errors import DataError
from cadenza.data.loading import data_loader
from cadenza.data.text.config import TextConfig
from cadenza.data.text.datasets.mixture import Joined, Mixture, apportioned
from cadenza.data.text.datasets.packing import PackedDocuments, PackedStream
from cadenza.data.text.datasets.sequences import TokenizedDocuments, TokenizedStream
from cadenza.data.text.datasets.window_streams import WindowedStream
from cadenza.data.text.datasets.windows import CausalLMCollator, WindowedDocuments
from cadenza.data.text.masking import IGNORED, Batch, MaskedLMCollator
from cadenza.data.text.mixed import key_of
from cadenza.data.text.prepared.cut import Cut
from cadenza.data.text.prepared.prepare import Prepared, prepared
from cadenza.data.text.sources import stream, streamed

NEXT_TO_NOTHING = 1e-30  # of labels, in float32 a number of its own that adds nothing to 1


def build_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int, packed: bool = False
) -> DataSpec:
    """Masked-LM batches of this rank, to train on or to evaluate.

    Token ids of files are made once and kept on disk (`data.cache_dir`).

    Args:
        batch_size: sequences in a batch of this device.
        seed: of the order and of the masks.
        packed: whether rows hold several documents, with `document_ids`; see
            `cadenza.data.text.datasets.packing`.

    Raises:
        DataError: no such source, or fewer sequences than one batch of all devices.
    """
    collator, counts = masked_collator(cfg, tokenizer, train, seed), None
    cut = masked_cut(cfg)
    if streamed(cfg, train):
        kind = PackedStream if packed else TokenizedStream
        dataset: Any = kind(stream(cfg, train, seed), tokenizer, cfg.max_seq_len, cut.split, fixed=not train)
    else:

        def of(found: Prepared) -> Drawn:
            rows = TokenizedDocuments(found.rows, tokenizer)
            return PackedDocuments(rows, cfg.max_seq_len, seed) if packed else rows

        dataset, counts = _finite(cfg, tokenizer, cut, train, seed, of)
    loader = data_loader(cfg, dataset, counts, collator, train, batch_size, seed)
    return DataSpec(loader, batch_transforms=collator.mask, get_num_tokens_in_batch=count_tokens)


def masked_cut(cfg: TextConfig) -> Cut:
    """How documents become rows of masked LM; [CLS] and [SEP] take two of `max_seq_len` tokens."""
    return Cut(cfg.max_seq_len - 2, cfg.long_documents == "split")


def masked_collator(cfg: TextConfig, tokenizer: Any, train: bool, seed: int) -> MaskedLMCollator:
    """The collator of a recipe's `data`."""
    ratio = cfg.mlm_probability if train else cfg.eval_mlm_probability
    corruption = cfg.mask_replace_prob, cfg.random_replace_prob
    return MaskedLMCollator(tokenizer, ratio, cfg.max_seq_len, seed, cfg.masking == "whole_word", *corruption)


def build_causal_dataspec(
    cfg: TextConfig, tokenizer: Any, *, train: bool, batch_size: int, seed: int
) -> DataSpec:
    """Causal-LM batches of this rank: windows of documents; arguments and errors as in `build_dataspec`."""
    counts = None
    if streamed(cfg, train):
        dataset: Any = WindowedStream(stream(cfg, train, seed), tokenizer, cfg, fixed=not train)
    else:

        def of(found: Prepared) -> Drawn:
            return WindowedDocuments(found.rows, tokenizer, found.cfg, seed, found.rows.domains)

        dataset, counts = _finite(cfg, tokenizer, Cut(None), train, seed, of)
    collator = CausalLMCollator(tokenizer, cfg.boundary_loss)
    loader = data_loader(cfg, dataset, counts, collator, train, batch_size, seed)
    return DataSpec(loader, batch_transforms=collator.shortened, get_num_tokens_in_batch=count_tokens)


def prepare_parts(cfg: TextConfig, tokenizer: Any, cut: Cut, train: bool) -> list[tuple[Prepared, float]]:
    """The prepared rows of each source, with its share of the rows of an epoch.

    Of a mixture, each source gives its share of `data.eval_documents`, too.
    """
    parts = cfg.parts()
    if not train and cfg.eval_source is not None:
        return [(prepared(cfg.judging(cfg.eval_source), tokenizer, cut, False), 1.0)]
    limits: list[int | None] = [cfg.eval_documents] * len(parts)
    if cfg.eval_documents is not None:
        limits = [*apportioned(cfg.eval_documents, [share for _, share in parts])]
    return [
        (prepared(replace(part, eval_documents=limit), tokenizer, cut, train, key_of(cfg, index)), share)
        for index, ((part, share), limit) in enumerate(zip(parts, limits, strict=True))
        if train or limit != 0
    ]


def prepare(cfg: TextConfig, tokenizer: Any, causal: bool) -> dict[str, list[Prepared]]:
    """The prepared rows `to train on` and `to evaluate`, of each source, made if they aren't there yet.

    Those of `data.other_eval` are among them.

    Raises:
        DataError: a stream, and errors of `prepared`.
    """
    cut = Cut(None) if causal else masked_cut(cfg)
    found = {}
    for name, train in (("to train on", True), ("to evaluate", False)):
        if streamed(cfg, train):
            right = (
                "mds is tokenized while it is read"
                if cfg.source == "mds"
                else ("data.stream=false downloads a Hub data set")
            )
            raise DataError(f"data.source: {cfg.source} is a stream; {right}")
        found[name] = [part for part, _ in prepare_parts(cfg, tokenizer, cut, train)]
    for name, source in cfg.other_eval.items():
        found[f"to evaluate, {name}"] = [prepared(cfg.judging(source), tokenizer, cut, False)]
    return found


def _finite(
    cfg: TextConfig, tokenizer: Any, cut: Cut, train: bool, seed: int, of: Callable[[Prepared], Drawn]
) -> tuple[Drawn, str]:
    """The data set of all sources, made of each by `of`, and its size in words."""
    found, shares = zip(*prepare_parts(cfg, tokenizer, cut, train), strict=True)
    sets = [of(part) for part in found]
    if train and len(sets) > 1:
        joined: Any = Mixture(sets, shares, seed)
        _refuse_unread(cfg, sets, joined.counts)
    else:
        joined = sets[0] if len(sets) == 1 else Joined(sets)
    joined.unknown_share = unknown_share(found)
    return joined, f"{sum(part.documents for part in found)} documents and {len(joined)} sequences"


def _refuse_unread(cfg: TextConfig, sets: list[Drawn], counts: list[int]) -> None:
    """Raise for a source of a mixture of which no row would be trained on."""
    for index, (rows, count) in enumerate(zip(sets, counts, strict=True)):
        if not len(rows):
            right = "give it more text, or name evaluation text in data.eval_source"
            raise DataError(f"{key_of(cfg, index)} gives no rows to train on; {right}")
        if not count:
            problem = f"its weight gives it none of the {sum(counts):,} rows of an epoch"
            raise DataError(f"data.mixture[{index}]: {problem}; raise it, or leave the source out")


def unknown_share(parts: tuple[Prepared, ...]) -> float:
    """The share of unknown tokens in all parts, in [0, 1]."""
    unknown, tokens = (sum(getattr(p.counts, name) for p in parts) for name in ("unknown", "tokens"))
    return unknown / max(tokens, 1)


def count_tokens(batch: Batch) -> dict[str, Any]:
    """`total`: tokens without padding; `loss_generating`: tokens with a label, which weight the loss.

    A micro-batch without a label, whose loss is 0, weighs next to nothing: Composer divides by the sum over a
    batch, which may have no other micro-batch. To add it to any other weight leaves that as it is.
    """
    labelled = float((batch["labels"] != IGNORED).sum())  # of one type on all ranks, which add them up
    return {"total": int(batch["attention_mask"].sum()), "loss_generating": labelled or NEXT_TO_NOTHING}


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
