"""A model as the checks call it."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from cadenza.checks.findings import NotCheckable
from cadenza.probes.sequences import Draw, vocabulary
from cadenza.probes.untouched import untouched

OUTPUTS = ("logits", "last_hidden_state", "prediction_logits", "start_logits")


class Subject:
    """A Hugging Face model.

    Args:
        model: the model, or Composer's wrapper around it.

    Raises:
        NotCheckable: it isn't such a model of words, it is on the meta device, compiled, or expects two
            sequences.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = _hugging_face(model)
        self.name = type(self.model).__name__
        self.embeddings = _embeddings(self.model)
        self.device = self.embeddings[0].weight.device
        self.arguments = _arguments(self.model)
        if "decoder_input_ids" in self.arguments:
            raise NotCheckable(f"{self.name} takes two sequences; check its encoder: model.get_encoder()")

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Evaluate the model within, and leave it as it was."""
        with untouched(self.model):
            self.model.eval()
            yield

    def __call__(self, **inputs: Any) -> Tensor:
        """Logits or the last hidden state (batch, length, ...); of a classifier (batch, ...)."""
        if "use_cache" in self.arguments:
            inputs.setdefault("use_cache", False)
        moved = {name: v.to(self.device) if isinstance(v, Tensor) else v for name, v in inputs.items()}
        try:
            output = self.model(**moved)
        except Exception as error:
            given = ", ".join(f"{name} {tuple(getattr(v, 'shape', ())) or ''}" for name, v in inputs.items())
            reason = f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
            raise NotCheckable(f"{self.name} can't be called with {given.strip()}: {reason}") from error
        return self._tensor(output)

    def numbers(self, **inputs: Any) -> Tensor:
        """The output, in float64 on the CPU."""
        return self(**inputs).detach().double().cpu()

    def by_token(self, shape: Sequence[int], **inputs: Any) -> Tensor:
        """The output of each token of `shape` (batch, length): (batch, length, width), float64 on the CPU."""
        output = self.numbers(**inputs)
        if output.shape[:2] != tuple(shape):
            raise NotCheckable(
                f"{self.name} returns {tuple(output.shape)} for tokens of {tuple(shape)}: no output by "
                "token; check its base model: model.base_model"
            )
        return output.reshape(*shape, -1)

    def draw(self, seed: int, length: int) -> Draw:
        """Tokens of the model, for rows of at most `length`."""
        most = getattr(self.model.config, "max_position_embeddings", None)
        if isinstance(most, int) and 0 < most < length:
            raise NotCheckable(
                f"{self.name} takes {most} positions, the rows have {length}; pass shorter lengths"
            )
        try:
            return Draw(self.model, seed)
        except ValueError as error:
            raise NotCheckable(f"{self.name}: {error}") from error

    @property
    def pad_token(self) -> int | None:
        """The token that fills rows; None where the config names none of the vocabulary."""
        pad = getattr(self.model.config, "pad_token_id", None)
        return pad if isinstance(pad, int) and 0 <= pad < vocabulary(self.model) else None

    def _tensor(self, output: Any) -> Tensor:
        if isinstance(output, dict):
            named = [output[name] for name in OUTPUTS if output.get(name) is not None]
            output = (*named, *output.values())
        among = [output] if isinstance(output, Tensor) else output
        tensors = [each for each in among if isinstance(each, Tensor) and each.is_floating_point()]
        if not tensors or tensors[0].ndim < 2:
            raise NotCheckable(f"{self.name} returns no logits and no last hidden state")
        return tensors[0]


def _hugging_face(model: Any) -> Any:
    """The Hugging Face model within Composer's wrapper, or `model` itself."""
    if hasattr(model, "_orig_mod"):
        raise NotCheckable("the model is compiled; check it before torch.compile, or check model._orig_mod")
    inner = getattr(model, "model", None)
    if not hasattr(model, "get_input_embeddings") and hasattr(inner, "get_input_embeddings"):
        model = inner
    name = type(model).__name__
    if not hasattr(model, "get_input_embeddings") or not hasattr(model, "config"):
        raise NotCheckable(f"{name} is no Hugging Face model: it has no config or no input embeddings")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise NotCheckable(f"{name} is on the meta device: it has no numbers; load it first")
    return model


def _embeddings(model: Any) -> list[Any]:
    """The word embeddings, and those that share their weight: T5's encoder calls its own."""
    try:
        words = model.get_input_embeddings()
    except NotImplementedError:
        words = None
    weight = getattr(words, "weight", None)
    if getattr(weight, "ndim", 0) != 2:
        raise NotCheckable(f"{type(model).__name__} has no word embeddings: the checks pass input_ids")
    shared = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.weight is weight]
    return [words, *(module for module in shared if module is not words)]


def _arguments(model: Any) -> set[str]:
    """The names that `forward` takes, in any class of the model: one in front may hand `**kwargs` on."""
    models = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    forwards = [vars(cls)["forward"] for m in models for cls in type(m).__mro__ if "forward" in vars(cls)]
    return {name for forward in forwards for name in inspect.signature(forward).parameters}
