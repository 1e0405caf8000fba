"""Accuracy against compute cost, by width, depth and bits: is the front mostly 4-bit?

    python -m cadenza.studies.qat_pareto yamls/qat_pareto.yaml [OVERLAY.yaml ...] [key=value ...]

After "Pareto-Optimal Quantized ResNet Is Mostly 4-bit" (arXiv 2105.03536). A point is a recipe trained to its
end at one width, depth, number of bits and seed; a point that was stopped goes on from its last checkpoint,
and one that is done is not trained again. Post-training points quantize unquantized ones, without training.
"""

import math
import sys
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from cadenza.algorithms import QuantizationAwareTraining
from cadenza.studies import cells, compute_cost, pareto_findings, report

PLAIN = "none"
SHARED = ("recipe", "overrides", "edge_bits", "calibrate_until", "granularity")
CALIBRATION = 20  # batches of post-training calibration


@dataclass
class Pareto:
    """The settings. `recipe`: files of the recipe that points play, and `overrides`, its key=value pairs.

    `bits`: `none`, or weights and activations such as `w4a4`; those in `repeated` are trained with each of
    `more_seeds`, too. `post_training`: bits to quantize the trained `none` points to. `edge_bits`,
    `calibrate_until` and `granularity`: of `quantization_aware_training`.
    """

    recipe: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    model_types: list[str] = field(default_factory=lambda: ["resnet50"])
    widths: list[float] = field(default_factory=lambda: [1.0])
    bits: list[str] = field(default_factory=lambda: [PLAIN, "w8a8", "w4a4", "w2a2"])
    post_training: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    seed: int = 17
    more_seeds: list[int] = field(default_factory=list)
    edge_bits: int | None = 8
    calibrate_until: str = "12ep"
    granularity: str = "per_channel"
    out: str = "runs/studies/qat_pareto"

    def __post_init__(self) -> None:
        if not self.recipe:
            raise ValueError("recipe must name the recipe's files")
        if PLAIN in self.post_training:
            raise ValueError(f"post_training holds {PLAIN!r}, which quantizes nothing")
        for text in (*self.bits, *self.post_training, *self.repeated):
            if any(in_bits(text)):
                QuantizationAwareTraining(**self.quantization(text))

    def quantization(self, bits: str) -> dict[str, Any]:
        """The options of `quantization_aware_training`."""
        weight, activation = in_bits(bits)
        return {
            "weight_bits": weight,
            "activation_bits": activation,
            "edge_bits": self.edge_bits,
            "calibrate_until": self.calibrate_until,
            "granularity": self.granularity,
        }


class Point(NamedTuple):
    """What a point is known by."""

    model_type: str
    width: float
    bits: str
    seed: int
    trained: bool  # with these bits, not quantized afterwards

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.model_type}-{self.width:g}-{self.bits}-{self.seed}"


def in_bits(text: str) -> tuple[int | None, int | None]:
    """The bits of weights and activations in `w4a4`; None, twice, in `none`.

    Raises:
        ValueError: it's neither.
    """
    weight, letter, activation = text.removeprefix("w").partition("a")
    if text == PLAIN:
        return None, None
    if not (text.startswith("w") and letter and weight.isdigit() and activation.isdigit()):
        raise ValueError(f"bits: {text!r} is neither none nor like w4a4")
    return int(weight), int(activation)


def points(cfg: Pareto) -> list[Point]:
    """All points, unquantized ones first, since others start from them."""
    one = product(cfg.model_types, cfg.widths, [PLAIN, *cfg.bits, *cfg.repeated], [cfg.seed, *cfg.more_seeds])
    wanted = [
        Point(*each, True) for each in one if each[2] in (cfg.bits if each[3] == cfg.seed else cfg.repeated)
    ]
    later = product(cfg.model_types, cfg.widths, cfg.post_training, [cfg.seed])
    return list(
        dict.fromkeys([*sorted(wanted, key=lambda p: p.bits != PLAIN), *(Point(*p, False) for p in later)])
    )


def run(cfg: Pareto) -> list[report.Row]:
    """Do what isn't done yet, point by point; all rows of these settings, old and new."""
    path, settings = Path(cfg.out) / "qat_pareto.csv", cells.fingerprint(cfg, SHARED)
    done = {_key(row) for row in cells.done(path) if row["settings"] == settings}
    every = points(cfg)
    todo = [point for point in every if tuple(map(str, point)) not in done]
    for point in todo:
        _recipe(cfg, point)  # what is wrong with one is said before anything is trained
    with tqdm(todo, total=len(every), initial=len(every) - len(todo), unit="point") as bar:
        for point in bar:
            bar.set_postfix_str(point.name + ("" if point.trained else ", post-training"))
            cells.append(path, {**point._asdict(), **measured(cfg, point), "settings": settings})
    return [row for row in cells.done(path) if row["settings"] == settings]


def measured(cfg: Pareto, point: Point) -> report.Row:
    """Train or quantize a point; its accuracies, its cost, and the seconds of its training."""
    found = _trained(cfg, point) if point.trained else _quantized_after(cfg, point)
    return {**found, **_cost(cfg, point)}


def _recipe(cfg: Pareto, point: Point) -> Any:
    """The recipe of a point; an unquantized one's, for what is quantized afterwards."""
    from cadenza.recipe import load

    runs = Path(cfg.out) / "runs" / cells.fingerprint(cfg, SHARED)
    pairs = [
        *cfg.overrides,
        f"name={point.name if point.trained else point._replace(bits=PLAIN).name}",
        *(f"seed={point.seed}", f"model.model_type={point.model_type}", f"model.width={point.width}"),
        *("train.autoresume=true", "train.progress_bar=false", f"train.run_folder={runs}"),
    ]
    recipe = load(cfg.recipe, pairs)
    recipe.algorithms.pop("quantization_aware_training", None)
    if point.trained and point.bits != PLAIN:
        recipe.algorithms["quantization_aware_training"] = cfg.quantization(point.bits)
    return recipe


def _trained(cfg: Pareto, point: Point) -> report.Row:
    import json

    from cadenza.recipe import play

    path = play.play(_recipe(cfg, point))
    if path is None:
        raise SystemExit("qat_pareto trains in one process; distribute the recipe instead, point by point")
    record = json.loads(path.read_text())
    return {**_accuracies(record["eval"], record["train"]["top1"]), "seconds": record["train"]["seconds"]}


def _accuracies(evaluation: dict[str, float], train_top1: float) -> report.Row:
    top5 = evaluation.get("top5", math.nan)
    return {"top1": evaluation["top1"], "top5": top5, "loss": evaluation["loss"], "train_top1": train_top1}


def _quantized_after(cfg: Pareto, point: Point) -> report.Row:
    from cadenza.recipe import images, play

    recipe = _recipe(cfg, point)
    settings = play.trainer_settings(recipe)
    model, _ = play.model_and_tokenizer(recipe)
    train, evaluation = play.dataspecs(recipe)
    trainer = play.build_trainer(
        recipe, settings, model, train, evaluation
    )  # which loads the trained weights
    if trainer.state.timestamp.batch.value == 0:
        raise SystemExit(f"{recipe.name}: there's no trained network to quantize; add {PLAIN} to bits")
    _calibrate(cfg, point, trainer.state.model, train)
    trainer.eval()
    results = images.results(recipe, trainer, evaluation)
    trainer.close()
    return {**_accuracies(results["eval"], results["train"]["top1"]), "seconds": 0.0}


def _calibrate(cfg: Pareto, point: Point, model: Any, train: Any) -> None:
    """Quantize `model`, and measure its activations on some batches; batch norm stays as it was trained."""
    from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
    from cadenza.surgery.calibration import calibrating

    apply_quantization_aware_training(model, *in_bits(point.bits), cfg.edge_bits, cfg.granularity)
    model.eval()
    for layer in calibrating(model):
        layer.train()
    for _, batch in zip(range(CALIBRATION), train.dataloader, strict=False):
        model(batch)
    set_activation_bounds(model)


def _cost(cfg: Pareto, point: Point) -> report.Row:
    from cadenza.algorithms import apply_quantization_aware_training
    from cadenza.recipe import images

    recipe = _recipe(cfg, point)
    network = images.model_and_tokenizer(recipe)[0].module
    if point.bits != PLAIN:
        apply_quantization_aware_training(network, *in_bits(point.bits), cfg.edge_bits, cfg.granularity)
    return compute_cost.totals(compute_cost.layer_costs(network, _example(recipe)))


def _example(recipe: Any) -> torch.Tensor:
    from cadenza.data import build_image_dataspec

    data = build_image_dataspec(recipe.data, train=False, batch_size=1, seed=recipe.seed)
    return next(iter(data.dataloader))[0]  # pyright: ignore[reportArgumentType]


def _key(row: report.Row) -> tuple[str, ...]:
    return tuple(row[name] for name in Point._fields)


def _study(cfg: Pareto) -> None:
    pareto_findings.write(Path(cfg.out), pareto_findings.as_points(run(cfg)))


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    return cells.play(arguments, Pareto, __doc__, _study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
