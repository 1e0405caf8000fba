"""The points of the study: a network with its bits, a variant and a seed each."""

from itertools import product
from typing import NamedTuple

from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto.settings import BASE, PART, PLAIN, Pareto


class Kind(NamedTuple):
    """What a point is, whatever its seed.

    Args:
        model_type: empty: the recipe's own.
        width: None: the recipe's own.
        trained: with these bits; False: quantized after training.
    """

    model_type: str
    width: float | None
    bits: str
    variant: str = BASE
    trained: bool = True

    @property
    def network(self) -> str:
        """Such as `resnet10 x 0.25`; `the recipe's` if the settings name none."""
        width = "" if self.width is None else f"x {self.width:g}"
        return f"{self.model_type} {width}".strip() or "the recipe's"

    @property
    def shown_bits(self) -> str:
        """The bits, for a reader."""
        return self.bits if self.trained else f"{self.bits}, after training"

    @property
    def full(self) -> "Kind":
        """The same network in full precision."""
        return Kind(self.model_type, self.width, PLAIN)

    @property
    def base(self) -> "Kind":
        """The same without the variant's change."""
        return self._replace(variant=BASE)


class Point(NamedTuple):
    """A kind with a seed."""

    kind: Kind
    seed: int

    @property
    def full(self) -> "Point":
        """The point of the same network and seed in full precision."""
        return Point(self.kind.full, self.seed)

    @property
    def name(self) -> str:
        """What a progress bar and the name of its run say."""
        kind = self.kind
        width = "" if kind.width is None else f"{kind.width:g}"
        variant = "" if kind.variant == BASE else kind.variant
        after = "" if kind.trained else "after"
        parts = (kind.model_type, width, kind.bits, variant, after, str(self.seed))
        return "-".join(part for part in parts if part)


def points(cfg: Pareto) -> list[Point]:
    """All points, or those of `part`: full precision first, which others start from, seed by seed.

    Raises:
        StudyError: the part has none.
    """
    networks = list(product(cfg.model_types or [""], cfg.widths or [None], cfg.seeds))
    if cfg.part is not None:
        number, count = map(int, PART.fullmatch(cfg.part).groups())  # pyright: ignore[reportOptionalMemberAccess]
        if count > len(networks):
            raise StudyError(
                f"part is {cfg.part}; there are {len(networks)} parts at most: a network with a seed each"
            )
        networks = networks[number - 1 :: count]
    found = [Point(kind, seed) for model, width, seed in networks for kind in _kinds(cfg, model, width)]
    return sorted(dict.fromkeys(found), key=lambda p: (p.kind.bits != PLAIN, not p.kind.trained))


def _kinds(cfg: Pareto, model_type: str, width: float | None) -> list[Kind]:
    """Those of a network."""
    bits = [each for each in cfg.bits if width in cfg.widths_of.get(each, [width])]
    variants = {name: cfg.variant(name) for name in (BASE, *cfg.variants)}
    trained = [
        Kind(model_type, width, each, name)
        for name, variant in variants.items()
        for each in bits
        if variant.has(each)
    ]
    after = [Kind(model_type, width, each, trained=False) for each in cfg.post_training]
    return [*trained, *after]
