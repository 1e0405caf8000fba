"""Accuracy against compute cost, by width, depth and bits: is the front mostly 4-bit?

    python -m cadenza.studies.qat_pareto yamls/qat_pareto.yaml [OVERLAY.yaml ...] [key=value ...]

After "Pareto-Optimal Quantized ResNet Is Mostly 4-bit" (arXiv 2105.03536). A point is a recipe trained to its
end with one width, depth, choice of bits and seed. A stopped point resumes from its last checkpoint; a point
that is done isn't trained again. Post-training points quantize trained networks without more training.
"""

import json
import math
import sys
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from cadenza.algorithms import QuantizationAwareTraining, apply_quantization_aware_training
from cadenza.data import build_image_dataspec
from cadenza.options import Range, Text, check, option
from cadenza.quantization.training.calibration import calibrate
from cadenza.recipe import load
from cadenza.recipe import run as recipe_run
from cadenza.recipe import trainer as recipe_trainer
from cadenza.studies import compute_cost, qat_findings, qat_report, report
from cadenza.studies.checks import StudyError, plots
from cadenza.studies.running import cells

PLAIN = "none"
SHARED = ("recipe", "overrides", "edge_bits", "calibrate_until", "granularity")
SEEDS = Range("[0, 4294967295]")
CALIBRATION = 20  # batches of post-training calibration


@dataclass
class Pareto:
    """The settings."""

    recipe: list[str] = option([], "The files of the recipe that is trained.", Text())
    overrides: list[str] = option([], "The recipe's key=value pairs.", Text())
    model_types: list[str] = option(["resnet50"], "Depths, a recipe's `model.model_type`.", Text())
    widths: list[float] = option([1.0], "A recipe's `model.width`.", Range("(0, 64]"))
    bits: list[str] = option(
        [PLAIN, "w8a8", "w4a4", "w2a2"], "`none`, or bits of weights and activations, such as `w4a4`."
    )
    post_training: list[str] = option([], "Bits to which the trained `none` points are quantized.")
    repeated: list[str] = option([], "Bits that are trained with `more_seeds`, too.")
    seed: int = option(17, "Of all points.", SEEDS)
    more_seeds: list[int] = option([], "Of the points in `repeated`.", SEEDS)
    edge_bits: int | None = option(8, "An option of `quantization_aware_training`.")
    calibrate_until: str = option("12ep", "An option of `quantization_aware_training`.")
    granularity: str = option("per_channel", "An option of `quantization_aware_training`.")
    out: str = option("runs/studies/qat_pareto", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        if not self.recipe:
            raise ValueError("recipe must name the recipe's files")
        if PLAIN in self.post_training:
            raise ValueError(f"post_training holds {PLAIN!r}, which quantizes nothing")
        for text in (*self.bits, *self.post_training, *self.repeated):
            if any(in_bits(text)):
                QuantizationAwareTraining(**self.quantization(text))

    def quantization(self, bits: str) -> dict[str, Any]:
        """The options of `quantization_aware_training` for these bits."""
        weight, activation = in_bits(bits)
        return {
            "weight_bits": weight,
            "activation_bits": activation,
            "edge_bits": self.edge_bits,
            "calibrate_until": self.calibrate_until,
            "granularity": self.granularity,
        }


class Point(NamedTuple):
    """What identifies a point."""

    model_type: str
    width: float
    bits: str
    seed: int
    trained: bool  # with these bits; False: quantized after training

    @property
    def name(self) -> str:
        """The name of its run."""
        return f"{self.model_type}-{self.width:g}-{self.bits}-{self.seed}"


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


def points(cfg: Pareto) -> list[Point]:
    """All points, unquantized ones first, since post-training points start from them."""
    bits, seeds = [PLAIN, *cfg.bits, *cfg.repeated], [cfg.seed, *cfg.more_seeds]
    every = (Point(*keys, True) for keys in product(cfg.model_types, cfg.widths, bits, seeds))
    trained = [p for p in every if p.bits in (cfg.bits if p.seed == cfg.seed else cfg.repeated)]
    trained.sort(key=lambda p: p.bits != PLAIN)
    after = product(cfg.model_types, cfg.widths, cfg.post_training, [cfg.seed])
    return list(dict.fromkeys([*trained, *(Point(*keys, False) for keys in after)]))


def run(cfg: Pareto) -> list[report.Row]:
    """Compute the missing points; returns all rows of these settings, with those of earlier runs."""
    path, settings = Path(cfg.out) / "qat_pareto.csv", cells.fingerprint(cfg, SHARED)
    done = {_key(row) for row in cells.done(path) if row["settings"] == settings}
    every = points(cfg)
    todo = [point for point in every if tuple(map(str, point)) not in done]
    for point in todo:
        _recipe(cfg, point)  # raises errors in a recipe before anything is trained
    with tqdm(todo, total=len(every), initial=len(every) - len(todo), unit="point") as bar:
        for point in bar:
            bar.set_postfix_str(point.name + ("" if point.trained else ", post-training"))
            cells.append(path, {**point._asdict(), **measured(cfg, point), "settings": settings})
    return [row for row in cells.done(path) if row["settings"] == settings]


def measured(cfg: Pareto, point: Point) -> report.Row:
    """Train or quantize a point; returns its accuracies, its cost, and the seconds of its training."""
    found = _trained(cfg, point) if point.trained else _quantized_after(cfg, point)
    return {**found, **_cost(cfg, point)}


def _recipe(cfg: Pareto, point: Point) -> Any:
    """The recipe of a point; for a post-training point, that of the unquantized network."""
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
    path = recipe_run.train(_recipe(cfg, point))
    if path is None:
        raise StudyError("qat_pareto trains in one process; distribute the recipe instead, point by point")
    record = json.loads(path.read_text())
    return {**_accuracies(record["eval"], record["train"]["top1"]), "seconds": record["train"]["seconds"]}


def _accuracies(evaluation: dict[str, float], train_top1: float) -> report.Row:
    top5 = evaluation.get("top5", math.nan)
    return {"top1": evaluation["top1"], "top5": top5, "loss": evaluation["loss"], "train_top1": train_top1}


def _quantized_after(cfg: Pareto, point: Point) -> report.Row:
    recipe = _recipe(cfg, point)
    settings, task = recipe_trainer.trainer_settings(recipe), recipe_run.task_of(recipe)
    model = task.model()
    train, evaluation = task.data()
    trainer = recipe_trainer.build_trainer(task, settings, model, train, evaluation)  # loads the weights
    if trainer.state.timestamp.batch.value == 0:
        raise StudyError(f"{recipe.name}: there's no trained network to quantize; add {PLAIN} to bits")
    _calibrate(cfg, point, trainer.state.model, train)
    trainer.eval()
    results = task.results(trainer, evaluation)
    trainer.close()
    return {**_accuracies(results["eval"], results["train"]["top1"]), "seconds": 0.0}


def _calibrate(cfg: Pareto, point: Point, model: Any, train: Any) -> None:
    """Quantize `model`, and set the activations' bounds from some batches; batch norm isn't updated."""
    apply_quantization_aware_training(model, *in_bits(point.bits), cfg.edge_bits, cfg.granularity)
    calibrate(model, islice(train.dataloader, CALIBRATION))


def _cost(cfg: Pareto, point: Point) -> report.Row:
    recipe = _recipe(cfg, point)
    network = recipe_run.task_of(recipe).model().module
    if point.bits != PLAIN:
        apply_quantization_aware_training(network, *in_bits(point.bits), cfg.edge_bits, cfg.granularity)
    data: Any = build_image_dataspec(recipe.data, train=False, batch_size=1, seed=recipe.seed)
    return compute_cost.totals(compute_cost.layer_costs(network, next(iter(data.dataloader))[0]))


def _key(row: report.Row) -> tuple[str, ...]:
    return tuple(row[name] for name in Point._fields)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""

    def study(cfg: Pareto) -> None:
        plots()
        qat_report.write(Path(cfg.out), qat_findings.as_points(run(cfg)))

    return cells.command_line(arguments, Pareto, __doc__, study)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
