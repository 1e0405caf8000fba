"""The evaluation that all records share, and the digest of all that makes losses comparable."""

import hashlib
from collections.abc import Sequence
from typing import Any

from composer.core import Algorithm, DataSpec
from tracks import Track

from cadenza.data import build_dataspec, documents
from cadenza.data.text.sources import streamed
from cadenza.models.positions import longest
from cadenza.recipe.errors import RecipeError
from cadenza.recipe.language_modelling import LanguageModelling
from cadenza.recipe.schema import Recipe


class Pretraining(LanguageModelling):
    """A record's training, judged by the track's evaluation and not by the recipe's own.

    The evaluation's rows, masks and batches are those of the track's base recipe with the track's seed. It
    runs in the precision of the record's recipe.
    """

    def __init__(self, recipe: Recipe, track: Track) -> None:
        super().__init__(recipe)
        self.track = track

    def data(self, algorithms: Sequence[Algorithm] = ()) -> tuple[DataSpec, DataSpec]:
        train, _ = super().data(algorithms)
        return train, self.evaluation()

    def evaluation(self) -> DataSpec:
        """The track's evaluation."""
        options: dict[str, Any] = {"batch_size": self.track.batch_size, "seed": self.track.seed}
        return build_dataspec(self.track.recipe.data, self.tokenizer, train=False, **options)

    def check(self, model: Any) -> None:
        super().check(model)
        length, most = self.track.recipe.data.max_seq_len, longest(model)
        if most is not None and most < length:
            raise RecipeError(f"the model has {most} positions; the evaluation's rows have {length} tokens")

    def digest(self) -> str:
        """A hash of the training text, the vocabulary and the evaluation's masked batches.

        Of a training text that is a stream it takes the recipe's `data` alone. It draws random numbers, so
        call it before the model is made.
        """
        cfg = self.track.recipe.data
        found = hashlib.sha256(self.tokenizer.backend_tokenizer.to_str().encode())
        for part in [cfg] if streamed(cfg, train=True) else documents(cfg, train=True):
            found.update(hashlib.sha256(repr(part).encode()).digest())
        evaluation: Any = self.evaluation()
        for batch in evaluation.dataloader:
            batch = evaluation.batch_transforms(batch)
            for key in sorted(batch):
                found.update(f"{key} {tuple(batch[key].shape)}".encode() + batch[key].numpy().tobytes())
        return found.hexdigest()[:16]
