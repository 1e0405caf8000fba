"""How much of a recipe's text a tokenizer doesn't know, before it is trained on."""

from dataclasses import replace
from itertools import islice
from typing import Any

from composer.core import DataSpec
from torch.utils.data import IterableDataset

from cadenza.data.ranks import from_first_rank
from cadenza.data.text.config import TextConfig
from cadenza.data.text.encoding import BATCH, Encoder
from cadenza.data.text.sources import documents

PARTS = {True: "training", False: "evaluation"}


def unknown_line(tokenizer: Any, cfg: TextConfig, train: DataSpec, evaluation: DataSpec) -> str | None:
    """The shares of unknown tokens for training and for evaluation; None if all is known.

    Raises:
        DataError: most of the first documents of a stream are unknown.
    """
    if tokenizer.unk_token_id is None:
        return None
    shares = [_share(tokenizer, cfg, spec, spec is train) for spec in (train, evaluation)]
    said = ", ".join(share for share in shares if share is not None)
    return f"unknown to the tokenizer ({tokenizer.unk_token}): {said}" if said else None


def _share(tokenizer: Any, cfg: TextConfig, spec: DataSpec, train: bool) -> str | None:
    loader: Any = spec.dataloader
    if not isinstance(loader.dataset, IterableDataset):
        share = getattr(loader.dataset, "unknown_share", 0)
        return f"{share:.2%} of the tokens for {PARTS[train]}" if share else None
    if cfg.source == "mds":  # a second reader of its folder would wait for the other ranks
        return f"not measured of mds for {PARTS[train]}, `cadenza data` does"
    share = from_first_rank(lambda: first_share(tokenizer, cfg, train))
    part = f"of the first {BATCH:,} documents for {PARTS[train]}"
    return f"{share:.2%} of the tokens {part}" if share else None


def first_share(tokenizer: Any, cfg: TextConfig, train: bool) -> float:
    """The share of unknown tokens in the first documents of a stream, which isn't shuffled for it."""
    encoder = Encoder(tokenizer)
    for _ in encoder(islice(documents(replace(cfg, shuffle_buffer=1), train), BATCH)):
        pass
    return encoder.unknown_share
