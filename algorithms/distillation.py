"""Distillation: a classifier learns from the outputs of a trained one as well as from the labels."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from composer.core import Algorithm, Event, Precision, State, get_precision_context
from composer.loggers import Logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cadenza.losses.soft_targets import soft_target_loss
from cadenza.options import Range, Text, check, option
from cadenza.surgery.errors import SurgeryError

__all__ = ["Distillation"]

LABELS = "labels"


@dataclass(eq=False)
class Distillation(Algorithm):
    """Adds a teacher's outputs to what a classifier learns: `(1 - weight) * loss + weight * T^2 * KL`.

    The divergence is that of the student's classes from the teacher's, both at `temperature` T (Hinton et
    al., arXiv 1503.02531); its mean is over examples. The teacher is in eval mode and isn't trained. It sees
    the same batch as the student, under the same autocast. It is no part of the model, so checkpoints and
    the optimizer don't hold it. Metrics and evaluations are those of the labels alone; the loss of training
    that is logged has both parts.

    Use it for quantization-aware training, with the network in full precision as the teacher. Each step also
    computes the teacher's forward.

    Works on any classifier, of images or of sequences.

    A recipe loads the teacher. In your own `Trainer` give the network itself, by `Distillation.of(network)`,
    and list it after MixUp and CutMix, which scale the loss that is there before them.
    """

    teacher: str = option(
        meaning="A run, a checkpoint or an exported folder; of text also what `model.pretrained` takes. It "
        "has the same classes, and of text the same tokenizer.",
        valid=Text(),
    )
    weight: float = option(
        0.5, "The weight of the teacher's outputs; that of the labels is the rest to 1.", Range("[0, 1]")
    )
    temperature: float = option(
        2.0,
        "Above 1 the less probable classes count more; 2 is one of the values tried in section 4.1 of arXiv "
        "1503.02531.",
        Range("(0, 1000]"),
    )

    def __post_init__(self) -> None:
        check(self, "distillation ", SurgeryError)
        self._network: Any = None

    @classmethod
    def of(cls, network: nn.Module, weight: float = 0.5, temperature: float = 2.0) -> "Distillation":
        """Distillation from a loaded network, of (examples, classes) logits."""
        made = cls(type(network).__name__, weight, temperature)
        made.give(network)
        return made

    def give(self, network: nn.Module) -> None:
        """Take `network`, which `teacher` names, as the teacher: in eval mode, without gradients.

        It is called with the images of a batch, or with what the student takes of a text's but the labels.
        """
        self._network = network.eval().requires_grad_(False)

    def match(self, event: Event, state: State) -> bool:
        # Composer's MixUp and CutMix add to the loss at BEFORE_BACKWARD, too, and don't know this part of it.
        return event == Event.FIT_START or (event == Event.BEFORE_BACKWARD and self.weight > 0)

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        if event == Event.FIT_START:
            return self._start(state)
        if not isinstance(state.loss, Tensor):
            raise SurgeryError(f"distillation: the loss is a {type(state.loss).__name__}, not one tensor")
        with torch.no_grad(), _autocast(state):
            teacher = _logits(self._called(state))
        student = _logits(state.outputs)
        _check(student, teacher)
        soft = soft_target_loss(student, teacher, self.temperature)
        state.loss = (1 - self.weight) * state.loss + self.weight * soft

    def _start(self, state: State) -> None:
        if self._network is None:
            right = "in a Trainer of your own use Distillation.of(network)"
            raise SurgeryError(f"distillation: the teacher {self.teacher} isn't loaded; {right}")
        ours = {id(parameter) for parameter in state.model.parameters()}
        if any(id(parameter) in ours for parameter in self._network.parameters()):
            raise SurgeryError("distillation: the teacher shares parameters with the model; give a copy")
        state.device.module_to_device(self._network)

    def _called(self, state: State) -> Any:
        """The teacher's outputs for what the student takes of a batch."""
        if not isinstance(state.batch, Mapping):
            return self._network(state.batch[0])
        student: Any = state.model
        student = student.module if isinstance(student, DistributedDataParallel) else student
        taken = set(getattr(student, "model_forward_args", state.batch)) - {LABELS}
        inputs = {name: value for name, value in state.batch.items() if name in taken}
        if unknown := inputs.keys() - signature(self._network.forward).parameters.keys():
            what, name = ", ".join(sorted(unknown)), type(self._network).__name__
            right = "the teacher must be a model of the same inputs"
            raise SurgeryError(f"distillation: {name} doesn't take {what} of the batch; {right}")
        return self._network(**inputs)


def _autocast(state: State) -> AbstractContextManager[Any]:
    """The precision that the student is computed in; Composer's context knows none of a CPU."""
    if state.device.name == "cpu":
        return torch.autocast("cpu", torch.bfloat16, enabled=state.precision == Precision.AMP_BF16)
    return get_precision_context(state.precision, state.precision_config)


def _logits(outputs: Any) -> Tensor:
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else outputs
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        right = "it must be (examples, classes), of two classes at least"
        raise SurgeryError(f"distillation is for classifiers: the logits here are {found}; {right}")
    return logits


def _check(student: Tensor, teacher: Tensor) -> None:
    """Raise if the two don't have the same classes, of which only the number is known here."""
    if student.shape != teacher.shape:
        sizes = f"{tuple(teacher.shape)}, the student's {tuple(student.shape)}"
        raise SurgeryError(f"distillation: the teacher's (examples, classes) are {sizes}; they must be equal")
