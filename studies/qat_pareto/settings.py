"""The settings of the QAT study."""

import re
from dataclasses import dataclass, field
from typing import Any

from cadenza.algorithms import QuantizationAwareTraining
from cadenza.options import Range, Text, check, option
from cadenza.studies.running.given import given

PLAIN, BASE, FULL = "none", "base", "{full}"
TECHNIQUE = "quantization_aware_training"
BITS = ("weight_bits", "activation_bits")
SEEDS = Range("[0, 4294967295]", whole=True)
COUNT = Range("[1, 2147483647]", whole=True)
NAME = re.compile(r"\w[\w.+]*")
PART = re.compile(r"(\d+)/(\d+)")


@dataclass
class Lists:
    """What a variant names as lists."""

    overrides: list[str] = field(default_factory=list)
    bits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Variant:
    """A change of all points that is compared with the points without it.

    Args:
        quantization: options of `quantization_aware_training`, in place of the study's.
        overrides: pairs of the recipe; `{full}` stands for the run's folder of the same network and seed in
            full precision.
        bits: those that it is trained with; empty: all. Full precision is among them if the change has an
            effect there: it names no option of the quantization, and no `{full}`.
    """

    quantization: dict[str, Any]
    overrides: list[str]
    bits: list[str]

    @property
    def needs_full(self) -> bool:
        """Whether its runs start after the one in full precision has ended."""
        return any(FULL in pair for pair in self.overrides)

    def has(self, bits: str) -> bool:
        """Whether there are points of these bits."""
        if bits == PLAIN and (self.quantization or self.needs_full):
            return False
        return not self.bits or bits in self.bits


@dataclass
class Pareto:
    """The settings."""

    recipe: list[str] = option(
        [], "The files of the recipe that is trained: images or labelled text.", Text()
    )
    overrides: list[str] = option([], "The recipe's key=value pairs.", Text())
    model_types: list[str] = option(
        ["resnet50"], "Depths, a recipe's `model.model_type`; []: the recipe's own.", Text()
    )
    widths: list[float] = option(
        [1.0], "A recipe's `model.width`; []: the recipe's own model.", Range("(0, 64]")
    )
    bits: list[str] = option(
        [PLAIN, "w8a8", "w4a4", "w2a2"], "`none`, or bits of weights and activations, such as `w4a4`."
    )
    widths_of: dict = option({}, "Bits -> the widths that are trained with them, in place of all.")
    post_training: list[str] = option([], "Bits to which the trained `none` points are quantized.")
    variants: dict = option(
        {},
        "Name -> `quantization`, options; `overrides`, pairs of the recipe; {full} in them is the run of the "
        "same network and seed in full precision; `bits`, those it is trained with. false leaves one out.",
    )
    seeds: list[int] = option([17], "Of all points; intervals need two at least.", SEEDS)
    edge_bits: int | None = option(8, "An option of `quantization_aware_training`.")
    calibrate_until: str = option("12ep", "An option of `quantization_aware_training`.")
    granularity: str = option("per_channel", "An option of `quantization_aware_training`.")
    margin: float = option(
        0.3, "Points of accuracy within which bits count as good as full precision.", Range("[0, 100]")
    )
    runs: list[str] = option([], "Folders of finished runs, or folders of them; * and ? are allowed.", Text())
    train: bool = option(True, "false: report the points that are there.")
    part: str | None = option(None, "Such as 1/3: the share of the points that this machine trains.", Text())
    processes: int | None = option(
        None, "Points side by side; threads are cores // processes. Null: 1, or one a CUDA device.", COUNT
    )
    out: str = option("runs/studies/qat_pareto", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        self.variants = {name: values for name, values in self.variants.items() if values is not False}
        for key in ("recipe", "seeds"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; it must name one at least")
        if PLAIN in self.post_training:
            raise ValueError(f"post_training holds {PLAIN!r}, which quantizes nothing")
        if self.post_training and PLAIN not in self.bits:
            raise ValueError(f"post_training quantizes the points of {PLAIN}; add {PLAIN} to bits")
        _check_widths(self)
        _check_variants(self)
        _check_part(self.part)
        for name in (BASE, *self.variants):
            for bits in (*self.bits, *(self.post_training if name == BASE else ())):
                if any(in_bits(bits)):
                    QuantizationAwareTraining(**self.quantization(bits, name))

    def quantization(self, bits: str, variant: str = BASE) -> dict[str, Any]:
        """The options of `quantization_aware_training` for these bits; none in full precision."""
        if bits == PLAIN:
            return {}
        shared = {name: getattr(self, name) for name in ("edge_bits", "calibrate_until", "granularity")}
        own = dict(zip(BITS, in_bits(bits), strict=True))
        return {**own, **shared, **self.variant(variant).quantization}

    def variant(self, name: str) -> Variant:
        """The variant of this name; `base` changes nothing."""
        key, values = f"variants.{name}", {} if name == BASE else self.variants[name]
        quantization = values.get("quantization", {}) if isinstance(values, dict) else {}
        if not isinstance(quantization, dict):
            raise ValueError(f"{key}.quantization is {quantization!r}; it must be a mapping of options")
        if isinstance(values, dict):
            values = {name: value for name, value in values.items() if name != "quantization"}
        lists = given(Lists, key, values)
        return Variant(quantization, lists.overrides, lists.bits)


def in_bits(text: str) -> tuple[int | None, int | None]:
    """The bits of weights and activations: (4, 4) for `w4a4`, (None, None) for `none`.

    Raises:
        ValueError: `text` is neither.
    """
    weight, letter, activation = text.removeprefix("w").partition("a")
    if text == PLAIN:
        return None, None
    if not (text.startswith("w") and letter and weight.isdigit() and activation.isdigit()):
        raise ValueError(f"bits: {text!r} is neither none nor like w4a4")
    return int(weight), int(activation)


def _check_widths(cfg: Pareto) -> None:
    for bits, widths in cfg.widths_of.items():
        if bits not in cfg.bits:
            raise ValueError(f"widths_of.{bits}: bits has no {bits!r}; it is {', '.join(cfg.bits)}")
        if not isinstance(widths, list) or not set(widths) <= set(cfg.widths):
            raise ValueError(f"widths_of.{bits} is {widths!r}; it must be a list of values of widths")


def _check_variants(cfg: Pareto) -> None:
    for name in cfg.variants:
        variant = cfg.variant(name)
        _check_variant(f"variants.{name}", name, variant)
        for bits in variant.bits:
            if bits not in cfg.bits:
                raise ValueError(f"variants.{name}.bits names {bits!r}, which isn't in bits")
        if not any(variant.has(bits) for bits in cfg.bits):
            raise ValueError(f"variants.{name} has no points: bits holds none that it has an effect on")
        if variant.needs_full and PLAIN not in cfg.bits:
            raise ValueError(f"variants.{name} names {FULL}, a point of {PLAIN}; add {PLAIN} to bits")


def _check_variant(key: str, name: str, variant: Variant) -> None:
    if name == BASE or not NAME.fullmatch(name):
        raise ValueError(f"{key}: the name must be of letters, digits and _ . +, and not {BASE!r}")
    if not variant.quantization and not variant.overrides:
        raise ValueError(f"{key} changes nothing; name quantization or overrides")
    if taken := [option for option in BITS if option in variant.quantization]:
        raise ValueError(f"{key}.quantization sets {taken[0]}, which the setting bits gives")
    if any(pair.startswith(f"algorithms.{TECHNIQUE}") for pair in variant.overrides):
        raise ValueError(f"{key}.overrides sets options of {TECHNIQUE}; name them by {key}.quantization")
    if any(pair.startswith(("seed=", "model.width=", "model.model_type=")) for pair in variant.overrides):
        raise ValueError(f"{key}.overrides sets what the settings seeds, widths and model_types give")


def _check_part(part: str | None) -> None:
    if part is not None:
        found = PART.fullmatch(part)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ValueError(f"part is {part!r}; it must be like 1/3, the first of three")
