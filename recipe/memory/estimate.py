"""The memory of one device, by part, at the moment when a training step needs most.

Two moments are compared: the peak of forward and backward, which `step` counts on shapes, and the optimizer's
step, with all gradients and what the outputs still hold. From the second batch on, the optimizer's state is
there all the time.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cadenza.recipe import build
from cadenza.recipe.memory import optimizer
from cadenza.recipe.memory.live import ACTIVATIONS, COPIES, GRADIENTS, LOGITS, WEIGHTS
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.memory.shapes import meta_model
from cadenza.recipe.memory.sharding import GATHERED, IN_FLIGHT, Sharding, sharding_of
from cadenza.recipe.memory.step import Step, checkpointed, step
from cadenza.recipe.memory.techniques import operated, uncounted
from cadenza.recipe.optimizers import refuse_unusable
from cadenza.recipe.optimizers.matrices import layer_matrices

STATE, STEPPING, BUCKETS = "optimizer state", "optimizer's step", "gradient buckets"
Moments = tuple[dict[str, Counter[str]], str | None]  # and why the step isn't known
BACKWARD, STEP = "forward and backward", "the optimizer's step"


@dataclass
class Estimate:
    """Bytes by part at the moment `when`; `notes` say what isn't among them."""

    setting: Setting
    parts: dict[str, int]
    when: str
    whole_weights: int  # bytes of the weights, however many devices share them
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


def estimate(setting: Setting) -> Estimate:
    """The memory of one device in `setting`; nothing is loaded but the config, and no tensor has memory.

    Raises:
        RecipeError, ModelError, SurgeryError: as a run of the recipe would raise.
    """
    refuse_unusable(setting.recipe.optimizer, setting.recipe.train)
    sharding = sharding_of(setting)
    algorithms = build.algorithms(setting.recipe.algorithms)
    model = operated(meta_model(setting.recipe), algorithms, setting.cuda)
    checkpointed(model, setting)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    moments, unknown = _sharded(model, setting, sharding) if sharding else _whole(model, setting)
    when, parts = max(moments.items(), key=lambda moment: sum(moment[1].values()))
    held = {name: size for name, size in parts.items() if size}
    return Estimate(setting, held, when, weights, _notes(setting, unknown))


def _whole(model: nn.Module, setting: Setting) -> Moments:
    """The moments of a device that holds the whole model."""
    section, sizes = setting.recipe.optimizer, _sizes(model, lambda p: p.nbytes)
    matrices = [p.nbytes for p in layer_matrices(model)] if section.name == "muon" else []
    found = step(model, setting)
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    always = Counter({WEIGHTS: weights, STATE: optimizer.state_bytes(section, sizes, matrices)})
    if setting.devices > 1:
        always[BUCKETS] = sum(sizes)
    needed = optimizer.step_bytes(section, sizes, setting.cuda, matrices)
    stepping = Counter({GRADIENTS: sum(sizes), STEPPING: needed})
    known = (ACTIVATIONS, LOGITS, COPIES, GRADIENTS)
    return _moments(always, found, stepping, known), found.unknown


def _sharded(model: nn.Module, setting: Setting, sharding: Sharding) -> Moments:
    """The moments under FSDP."""
    section, sizes = setting.recipe.optimizer, _sizes(model, sharding.shard)
    weights = sum(sharding.shard(p) for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    always = Counter({WEIGHTS: weights, STATE: optimizer.state_bytes(section, sizes), GRADIENTS: sum(sizes)})
    gathered = sharding.gathered(model)
    flying = {"backward": sharding.in_flight(model), "end": sharding.at_the_end(model)}
    parts = (ACTIVATIONS, LOGITS, COPIES)
    found = step(sharding.computing(model), setting, parts)
    stepping = Counter({STEPPING: optimizer.step_bytes(section, sizes, setting.cuda)})
    moments = _moments(always, found, stepping, known=parts)
    moments[BACKWARD] += Counter({GATHERED: gathered, IN_FLIGHT: flying["backward"]})
    end = Counter({GATHERED: gathered, IN_FLIGHT: flying["end"]})
    moments["the end of backward"] = always + end + _only(found.after, parts)
    return moments, found.unknown


def _moments(
    always: Counter[str], found: Step, stepping: Counter[str], known: tuple[str, ...]
) -> dict[str, Counter[str]]:
    left = _only(found.after, (ACTIVATIONS, LOGITS))
    return {BACKWARD: always + _only(found.peak, known), STEP: always + stepping + left}


def _only(parts: Counter[str], names: tuple[str, ...]) -> Counter[str]:
    return Counter({name: parts[name] for name in names})


def _sizes(model: nn.Module, size: Callable[[Any], int]) -> list[int]:
    """The bytes of each trained parameter."""
    return [size(parameter) for parameter in model.parameters() if parameter.requires_grad]


def _notes(setting: Setting, unknown: str | None) -> list[str]:
    notes = [f"activations and logits not estimated, and not in the total ({unknown})"] if unknown else []
    if names := uncounted(setting.recipe):
        notes.append(f"not counted: what {', '.join(names)} may hold, such as a copy of the weights")
    if setting.precision == "amp_fp8":
        notes.append("amp_fp8 is counted as amp_bf16")
    return notes
