"""The one table of techniques: what the contract matrix runs on. A new technique adds one row."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import effects
import torch
from families import CONFIGS, DECODERS, ENCODERS

from cadenza import algorithms
from cadenza.attention.technique import AttentionSurgery
from cadenza.surgery import Stage, Surgery

ALL = tuple(CONFIGS)
LEARNED_ENCODERS = ("bert", "roberta", "electra", "distilbert", "albert")


@dataclass(frozen=True)
class Case:
    """A technique: its name in a recipe, the families that it claims, where and how it has its effect."""

    name: str
    families: tuple[str, ...] = ALL
    context: Callable = nullcontext
    effect: Callable = effects.logits  # of a model, a family and a context; a tensor that must change
    required: dict[str, Any] = field(default_factory=dict)  # options without a default
    options: dict[str, Any] = field(default_factory=dict)  # further ones, of the tests
    defaults: dict[str, Any] = field(default_factory=dict)  # of each option in a recipe, without `strict`
    other: dict[str, Any] = field(default_factory=dict)  # another value of each, as in a recipe

    @property
    def cls(self) -> type[Surgery]:
        return algorithms.REGISTRY[self.name]

    @property
    def proves(self) -> bool:
        """Whether it has the option `prove`."""
        return issubclass(self.cls, AttentionSurgery)

    @property
    def apply(self) -> Callable:
        return partial(getattr(algorithms, f"apply_{self.name}"), **self.required, **self.options)

    def algorithm(self) -> Surgery:
        return self.cls(**self.required, **self.options)


ROWS = [
    Case("alibi"),
    # Mistral here has a sliding window, which the anchor refuses; see the tests of anchor_attention.
    Case(
        "anchor_attention",
        ("llama", "qwen3", "gpt2"),
        effect=effects.anchored_logits,
        defaults={"mode": "anchor", "reset_positions": False},
        other={"mode": "intra_document", "reset_positions": True},
    ),
    Case(
        "bf16_safe_rope",
        ("llama", "qwen3", "mistral"),
        effect=effects.logits_after_a_cast,
        defaults={"per_document": False},
        other={"per_document": True},
    ),
    Case(
        "chunked_loss",
        effect=effects.size_of_logits,
        defaults={"rows": None, "label_smoothing": 0.0, "z_loss": 0.0},
        other={"rows": 3, "label_smoothing": 0.1, "z_loss": 0.01},
    ),
    Case(
        "drop_rope",
        ("llama", "qwen3", "mistral"),
        defaults={"temperature": 1.0},
        other={"temperature": 0.5},
    ),
    Case(
        "exposure_weighting",
        DECODERS,
        effect=effects.loss_in_training,
        required={"threshold": 3},
        defaults={"extra": 0.5, "largest": 16.0},
        other={"threshold": 2, "extra": 1.0, "largest": None},
    ),
    Case(
        "flash_attention",
        effect=effects.scores_computed,
        defaults={"kernel": "auto"},
        other={"kernel": "sdpa"},
    ),
    Case(
        "glu",
        ("bert", "roberta", "electra", "distilbert"),
        defaults={"variant": "geglu", "intermediate_size": None},
        other={"variant": "reglu", "intermediate_size": 0.5},
    ),
    Case("no_bias", LEARNED_ENCODERS, defaults={"keep_output": True}, other={"keep_output": False}),
    Case("pre_norm", LEARNED_ENCODERS[:-1]),
    Case("qk_norm", LEARNED_ENCODERS, defaults={"eps": 1e-6}, other={"eps": 1e-3}),
    Case("rms_norm", (*ENCODERS, "gpt2")),
    Case(
        "rotary",
        LEARNED_ENCODERS,
        defaults={"theta": 10_000.0, "window_theta": None},
        other={"theta": 160_000.0, "window_theta": 10_000.0},
    ),
    Case("low_precision_norm", context=partial(torch.autocast, "cpu", dtype=torch.bfloat16)),
    Case("sequence_packing", effect=effects.packed_logits),
    Case(
        "sliding_window",
        required={"window": 2},
        defaults={"global_every": None},
        other={"window": 3, "global_every": 2},
    ),
    Case("sparse_prediction", ENCODERS, effect=effects.labelled_logits),
    Case("unpadding", effect=effects.rows_in_layers),
    Case("vocab_padding", effect=effects.rows_of_words, defaults={"multiple": 64}, other={"multiple": 8}),
    # The last ones: they must not precede what changes the structure. GPT-2's layers hold no nn.Linear.
    Case(
        "quantization_aware_training",
        tuple(name for name in ALL if name != "gpt2"),
        defaults={
            "weight_bits": 4,
            "activation_bits": 4,
            "edge_bits": 8,
            "calibrate_until": "0.05dur",
            "granularity": "per_channel",
            "edge_gradient": "full",
            "scales": "calibrated",
            "start": "0ba",
        },
        other={
            "weight_bits": 3,
            "activation_bits": 5,
            "edge_bits": 7,
            "calibrate_until": "9ba",
            "granularity": "per_tensor",
            "edge_gradient": "half",
            "scales": "learned",
            "start": "0.01dur",
        },
    ),
    Case(
        "post_training_quantization",
        tuple(name for name in ALL if name != "gpt2"),
        options={"keep_original": True},
        defaults={
            "format": "nf4",
            "only": None,
            "except_": None,
            "compute_dtype": None,
            "keep_original": False,
        },
        other={
            "format": "int8",
            "only": ["*.mlp.*"],
            "except": ["*.0.*"],
            "compute_dtype": "bfloat16",
            "keep_original": True,
        },
    ),
]
CASES = {case.name: case for case in ROWS}

REQUIRED = {name: CASES[name].required if name in CASES else {} for name in algorithms.REGISTRY}
REQUIRED["batch_size_warmup"] = {"initial": 8}
REQUIRED["distillation"] = {"teacher": "runs/full"}
PAIRS = [(name, family) for name, case in CASES.items() for family in case.families]


# `alibi` and `drop_rope` leave nothing to rotate; `alibi` excludes `rotary`, and knows no anchor; a window
# hides the anchor; `sequence_packing` reads document_ids in its own way; a layer is quantized in one way.
EXCLUDE = [
    {"bf16_safe_rope", "anchor_attention", "drop_rope", "quantization_aware_training", "rotary"},
    {"alibi", "bf16_safe_rope", "sequence_packing", "sliding_window", "post_training_quantization"},
    {"alibi", "drop_rope", "sequence_packing", "sliding_window", "post_training_quantization"},
    {"alibi", "bf16_safe_rope", "anchor_attention", "drop_rope", "quantization_aware_training"},
]


def together(family: str) -> list[list[str]]:
    """The largest sets of techniques that claim `family` and go together."""
    every = [name for name, case in CASES.items() if family in case.families]
    chosen = [[name for name in every if name not in excluded] for excluded in EXCLUDE]
    chosen = [names for n, names in enumerate(chosen) if names not in chosen[:n]]
    return chosen if any(name in EXCLUDE[0] for name in every) else chosen[:1]


def claimed(family: str) -> list[str]:
    """The first of `together`."""
    return together(family)[0]


def honoured(order):
    """`order` with quantization after what it can't precede, structure; all else may come before or after."""
    stages = [CASES[name].cls.stage for name in order]
    last = max((i for i, stage in enumerate(stages) if stage == Stage.STRUCTURE), default=0)
    early = [name for name, stage in zip(order[:last], stages, strict=False) if stage == Stage.QUANTIZE]
    kept = [name for name in order[: last + 1] if name not in early]
    return [*kept, *early, *order[last + 1 :]]


TOGETHER = [(family, names) for family in CONFIGS for names in together(family)]
