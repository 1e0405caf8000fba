"""Loaders of labelled text for Composer, as a `DataSpec`."""

from typing import Any

from composer.core import DataSpec

from cadenza.data.labelled.collate import LabelledCollator
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.dataset import LabelledExamples
from cadenza.data.labelled.packing import Packing, examples_in
from cadenza.data.labelled.sets import Example
from cadenza.data.labelled.tokens import LabelledEncoder
from cadenza.data.loading import data_loader
from cadenza.data.ranks import show
from cadenza.data.text.loader import count_tokens


def build_labelled_dataspec(
    examples: list[Example],
    tokenizer: Any,
    cfg: LabelledConfig,
    *,
    train: bool,
    batch_size: int,
    seed: int,
    packed: bool = False,
) -> DataSpec:
    """Batches of this rank, to train on or to evaluate; see `LabelledCollator`.

    Args:
        batch_size: examples in a batch of this device.
        seed: of the order.
        packed: whether micro-batches hold several examples a row; see `cadenza.data.labelled.packing`.

    Raises:
        DataError: fewer examples than one batch of all devices; or a tokenizer, a length or examples that
            don't fit.
    """
    collator = LabelledCollator(tokenizer, cfg.max_seq_len, cfg.classes)
    part = "training" if train else "evaluation"
    dataset = _tokenized(examples, tokenizer, cfg, part)
    counts = f"{len(dataset)} examples"
    loader = data_loader(cfg, dataset, counts, collator, train, batch_size, seed)
    return DataSpec(
        loader,
        microbatch_transforms=Packing(cfg.max_seq_len) if packed else None,
        get_num_samples_in_batch=examples_in,
        get_num_tokens_in_batch=count,
    )


def count(batch: Any) -> dict[str, Any]:
    """As `count_tokens`; each label counts, since a number may be -100."""
    return {**count_tokens(batch), "loss_generating": float(len(batch["labels"]))}


def _tokenized(examples: list[Example], tokenizer: Any, cfg: LabelledConfig, part: str) -> LabelledExamples:
    encoder = LabelledEncoder(tokenizer, cfg.max_seq_len, cfg.pair_field is not None)
    found = encoder(examples, cfg.on_bad_row == "skip", f"data.source: the examples for {part}")
    if encoder.cut:
        share = encoder.cut / encoder.examples
        counts = f"{encoder.cut:,} of {encoder.examples:,} examples for {part} ({share:.1%})"
        show(f"{counts} are cut to data.max_seq_len, {cfg.max_seq_len} tokens")
    dataset = LabelledExamples(*found)
    dataset.unknown_share = encoder.unknown_share
    return dataset
