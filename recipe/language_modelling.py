"""The task of recipes that train a masked or a causal language model."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from composer import Trainer
from composer.core import Algorithm, DataSpec
from composer.models import HuggingFaceModel
from composer.utils import reproducibility

from cadenza.algorithms import check_rope
from cadenza.data import (
    build_causal_dataspec,
    build_dataspec,
    build_tokenizer,
    train_texts,
    unigram_entropy,
)
from cadenza.data.survey.unknown_share import unknown_line
from cadenza.data.text.config import TextConfig
from cadenza.data.text.marks.anchor import carry_anchor
from cadenza.data.text.new_words import extended, listed
from cadenza.data.text.sources import train_texts_made_of
from cadenza.data.text.tokenizer import check_special
from cadenza.data.text.vocabulary import TRAINERS
from cadenza.models import causal_lm, has_adapters, masked_lm
from cadenza.models.positions import longest
from cadenza.recipe import build, checkpoint_tokenizer
from cadenza.recipe.callbacks import show
from cadenza.recipe.continuing.texts import other_data
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.parallelism import mark_layers
from cadenza.recipe.record import real_tokens_per_second
from cadenza.recipe.schema import Recipe
from cadenza.recipe.task import Task

BUILDERS = {"masked_lm": masked_lm, "causal_lm": causal_lm}


def refuse_encoder(model: Any) -> None:
    """Raise if no attention of `model` is causal: each token would see the one that it is to predict."""
    causal = {module.is_causal for module in model.modules() if hasattr(module, "is_causal")}
    if causal == {False}:
        raise RecipeError(
            f"model.model_type {model.model.config.model_type!r} attends in both directions; causal_lm needs "
            "another model type, or model.config.is_decoder=true"
        )


def refuse_longer(length: int, model: Any) -> None:
    """Raise if `model` has fewer positions than rows have tokens."""
    most = longest(model)
    if most is not None and length > most:
        right = "shorten it, or give a new model more by model.config.max_position_embeddings"
        raise RecipeError(f"data.max_seq_len is {length}; the model has {most} positions: {right}")


def show_unknown(*data: Any) -> None:
    """Print how much of the text the tokenizer doesn't know; arguments and errors as in `unknown_line`."""
    if line := unknown_line(*data):
        show(line)


class LanguageModelling(Task[Recipe]):
    """A language model, trained on text."""

    weighs_tokens = True

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer: the checkpoint's, loaded, taken from the cache, or trained on the recipe's text.

        Its BOS is `data.anchor_token`, if that is set.
        """
        return carry_anchor(self._tokenizer(), self.recipe.data.anchor_token)

    def _tokenizer(self) -> Any:
        if self.checkpoint is None:
            return self._named[0]
        tokenizer = checkpoint_tokenizer.of_run(
            self.checkpoint,
            self.recipe.tokenizer,
            lambda: carry_anchor(self._named[0], self.recipe.data.anchor_token),
        )
        if self.recipe.model.objective == "masked_lm":
            check_special(tokenizer, str(self.checkpoint))
        return tokenizer

    @cached_property
    def _named(self) -> tuple[Any, dict[int, list[int]]]:
        """The tokenizer that the recipe names, and the new words in it: id -> ids of the pieces before."""
        cfg, masked = self.recipe.tokenizer, self.recipe.model.objective == "masked_lm"
        data = self.recipe.data
        made_of = train_texts_made_of(data) if cfg.name in TRAINERS else None
        tokenizer = build_tokenizer(cfg, lambda: train_texts(data), masked, made_of)
        if cfg.new_tokens is None:
            return tokenizer, {}
        larger, pieces = extended(tokenizer, listed(cfg.new_tokens))
        show(f"new words: {len(pieces)}, of {sum(map(len, pieces.values())):,} pieces before")
        return larger, pieces

    def model(self) -> HuggingFaceModel:
        tokenizer = self.tokenizer  # before seeding: its training must not shift the random weights
        reproducibility.seed_all(self.recipe.seed)
        section = asdict(self.recipe.model)
        checkpointing = section.pop("gradient_checkpointing")
        new_words = self._named[1] if self.recipe.tokenizer.new_tokens is not None else None
        build_model = BUILDERS[section.pop("objective")]
        model = build_model(**section, tokenizer=tokenizer, new_words=new_words)
        if checkpointing:
            model.model.gradient_checkpointing_enable()
        mark_layers(model)
        checkpoint_tokenizer.refuse_other_words(self.recipe, self.checkpoint)
        if self.recipe.model.objective == "causal_lm":
            refuse_encoder(model)
        return model

    def data(self, algorithms: Sequence[Algorithm] = ()) -> tuple[DataSpec, DataSpec]:
        batch, eval_batch = self.batch_sizes()
        common: dict[str, Any] = {"tokenizer": self.tokenizer, "seed": self.recipe.seed}
        cfg, causal = self.recipe.data, self.recipe.model.objective == "causal_lm"
        packed = {} if causal else {"packed": build.packs_rows(algorithms)}
        builder: Any = build_causal_dataspec if causal else build_dataspec

        def judged(cfg: TextConfig) -> DataSpec:
            return builder(cfg=cfg, train=False, batch_size=eval_batch, **common)

        train = builder(cfg=cfg, train=True, batch_size=batch, **packed, **common)
        evaluation, self.others = judged(cfg), other_data(cfg, judged)
        show_unknown(self.tokenizer, cfg, train, evaluation)
        return train, evaluation

    def check(self, model: Any) -> None:
        check_rope(model)
        refuse_longer(self.recipe.data.max_seq_len, model)

    def results(self, trainer: Trainer, evaluation: DataSpec) -> dict[str, Any]:
        accuracy = "masked_accuracy" if self.recipe.model.objective == "masked_lm" else "accuracy"
        metrics = trainer.state.eval_metrics["eval"]
        timestamp = trainer.state.timestamp
        return {
            "train": {
                "seconds": timestamp.total_wct.total_seconds(),
                "batches": timestamp.batch.value,
                "real_tokens": timestamp.token.value,
                "real_tokens_per_second": real_tokens_per_second(trainer.state),
                "loss": trainer.state.total_loss_dict.get("loss/train/total"),
            },
            "eval": {
                "loss": float(metrics["LanguageCrossEntropy"].compute()),
                accuracy: float(metrics["MaskedAccuracy"].compute()),
                "unigram_entropy": unigram_entropy(evaluation),
            },
        }

    @staticmethod
    def summary(results: dict[str, Any]) -> str:
        train, evaluation = results["train"], results["eval"]
        gain = evaluation["unigram_entropy"] - evaluation["loss"]
        side = "below" if gain >= 0 else "above"
        if "masked_accuracy" in evaluation:
            kind, quality = "masked", f"masked accuracy {evaluation['masked_accuracy']:.1%}"
        else:
            perplexity = math.exp(evaluation["loss"])
            kind, quality = "next", f"perplexity {perplexity:.1f}, accuracy {evaluation['accuracy']:.1%}"
        return (
            f"train: {train['batches']} batches in {train['seconds']:.0f} s, "
            f"{train['real_tokens_per_second']:,.0f} real tokens/s\n"
            f"eval: {kind}-token cross-entropy {evaluation['loss']:.3f} nats, {abs(gain):.3f} {side} the "
            f"unigram entropy of the same tokens ({evaluation['unigram_entropy']:.3f}); {quality}"
        )

    def keep(self, model: Any, folder: Path) -> None:
        super().keep(model, folder)
        if has_adapters(model):
            model.model.save_pretrained(str(folder / "adapter"))
        self.tokenizer.save_pretrained(folder / "tokenizer")
