"""The points of accuracy against cost: which there are, the recipe of each, and how one is calibrated."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from paths import ROOT
from torch import nn

from cadenza.quantization.training.averages import weight
from cadenza.recipe import RecipeError, load_settings, run
from cadenza.studies import qat_pareto
from cadenza.studies.checks import StudyError
from cadenza.studies.qat_pareto import Pareto, Point, in_bits, points
from cadenza.studies.running import cells


def test_bits():
    assert in_bits("w4a4") == (4, 4)
    assert in_bits("w2a8") == (2, 8)
    assert in_bits("none") == (None, None)
    for text in ("w4", "4a4", "w4a", "wa4", "a4", "w-4a4", "w4a4a4", "w4 a4", "", "None"):
        with pytest.raises(ValueError, match=f"bits: {text!r} is neither none nor like w4a4"):
            in_bits(text)


def test_points():
    networks = [(depth, width) for depth in ("resnet18", "resnet50") for width in (0.5, 1.0)]
    cfg = Pareto(
        recipe=["x.yaml"],
        model_types=["resnet18", "resnet50"],
        widths=[0.5, 1.0],
        bits=["w4a4", "none", "w2a2"],
        post_training=["w4a4"],
        repeated=["none", "w4a4"],
        more_seeds=[18, 17, 18],
    )
    found = points(cfg)
    trained = [("none", 17), ("none", 18), ("w4a4", 17), ("w4a4", 18), ("w2a2", 17)]
    expected = {Point(*each, *one, True) for each in networks for one in trained}
    expected |= {Point(*each, "w4a4", 17, False) for each in networks}
    assert len(found) == len(set(found)), "no doubles"
    assert set(found) == expected
    assert [p.bits == "none" for p in found] == [True] * 8 + [False] * 16, "unquantized ones first"
    assert [p.trained for p in found] == [True] * 20 + [False] * 4
    assert len({p.name for p in found if p.trained}) == 20, "each has a run of its own"


def test_only_repeated_bits_have_more_seeds():
    cfg = Pareto(recipe=["x.yaml"], bits=["none"], repeated=["w4a4"], more_seeds=[18])
    assert [(p.bits, p.seed) for p in points(cfg)] == [("none", 17), ("w4a4", 18)]
    assert [p.seed for p in points(Pareto(recipe=["x.yaml"], bits=["none"], more_seeds=[18]))] == [17]


def test_the_defaults():
    cfg = Pareto(recipe=["x.yaml"])
    assert (cfg.model_types, cfg.widths, cfg.bits) == (["resnet50"], [1.0], ["none", "w8a8", "w4a4", "w2a2"])
    assert (cfg.post_training, cfg.repeated, cfg.more_seeds, cfg.seed) == ([], [], [], 17)
    assert (cfg.edge_bits, cfg.calibrate_until, cfg.granularity) == (8, "12ep", "per_channel")
    assert (cfg.overrides, cfg.out) == ([], "runs/studies/qat_pareto")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": []}, "recipe must name the recipe's files"),
        ({"post_training": ["w4a4", "none"]}, "post_training holds 'none', which quantizes nothing"),
        ({"bits": ["w9a4"]}, "weight_bits is 9"),
        ({"post_training": ["w4a9"]}, "activation_bits is 9"),
        ({"repeated": ["w1a4"]}, "weight_bits is 1"),
        ({"bits": ["w4a4"], "edge_bits": 9}, "edge_bits is 9"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Pareto(**{"recipe": ["x.yaml"], **options})


def test_what_a_point_is_known_by():
    assert Point("resnet18", 0.0625, "w4a4", 18, True).name == "resnet18-0.0625-w4a4-18"
    assert Point("resnet50", 1.0, "none", 17, True).name == "resnet50-1-none-17"
    row = {"seed": "17", "bits": "none", "width": "1.0", "model_type": "a", "trained": "True", "top1": "1"}
    assert qat_pareto._key(row) == ("a", "1.0", "none", "17", "True")
    assert qat_pareto._key(row) == tuple(map(str, Point("a", 1.0, "none", 17, True)))


@pytest.mark.parametrize("small", [False, True])
def test_each_point_is_the_recipe_in_its_bits(small, monkeypatch):
    monkeypatch.chdir(ROOT)  # recipes are named from there
    files = ["yamls/qat_pareto.yaml", "yamls/scale/cpu_pareto.yaml"][: 1 + small]
    cfg = load_settings(Pareto, files, [])
    stock = None
    for point in points(cfg):
        recipe = qat_pareto._recipe(cfg, point)
        quantization = recipe.algorithms.pop("quantization_aware_training", {})
        bits = quantization.get("weight_bits"), quantization.get("activation_bits")
        assert bits == (in_bits(point.bits) if point.trained else (None, None))
        assert (recipe.model.model_type, recipe.model.width) == (point.model_type, point.width)
        assert (recipe.seed, recipe.train.autoresume, recipe.algorithms) == (point.seed, True, {})
        own = recipe.optimizer, recipe.scheduler, recipe.data
        assert own == (stock or own)
        stock = own
    with pytest.raises(RecipeError, match=r"resnet50_bf16\.yaml: unknown key"):
        load_settings(Pareto, ["yamls/resnet50_bf16.yaml"], [])


@pytest.fixture
def cfg():
    return Pareto(
        recipe=[str(ROOT / f"yamls/{name}.yaml") for name in ("resnet50_bf16", "quantization/w4a4")],
        overrides=["data.source=digits", "data.augmentation=flip", "optimizer.lr=0.5"],
        bits=["none", "w2a4"],
        post_training=["w8a8"],
        edge_bits=5,
        calibrate_until="7ba",
        granularity="per_tensor",
        out="there",
    )


def test_the_recipe_of_a_point(cfg):
    folder = f"there/runs/{cells.fingerprint(cfg, qat_pareto.SHARED)}"
    for bits, trained, name in (("none", True, "none"), ("w2a4", True, "w2a4"), ("w8a8", False, "none")):
        recipe = qat_pareto._recipe(cfg, Point("resnet18", 0.25, bits, 18, trained))
        assert recipe.name == f"resnet18-0.25-{name}-18"
        assert (recipe.model.model_type, recipe.model.width, recipe.seed) == ("resnet18", 0.25, 18)
        assert (recipe.data.source, recipe.optimizer.lr) == ("digits", 0.5)
        train = recipe.train
        assert (train.run_folder, train.autoresume, train.progress_bar) == (folder, True, False)
        quantization = {"weight_bits": 2, "activation_bits": 4, "edge_bits": 5, "calibrate_until": "7ba"}
        quantization["granularity"] = "per_tensor"
        expected = {"quantization_aware_training": quantization} if bits == "w2a4" else {}
        assert recipe.algorithms == expected, "the recipe's own bits give way"


def test_what_is_recorded_of_a_trained_point(cfg, monkeypatch, tmp_path):
    found = {"eval": {"top1": 0.5, "top5": 0.9, "loss": 1.5}, "train": {"top1": 0.75, "seconds": 12.0}}
    asked = []

    def played(recipe):
        asked.append(recipe.name)
        (tmp_path / "run.json").write_text(json.dumps(found))
        return tmp_path / "run.json"

    monkeypatch.setattr(run, "train", played)
    point = Point("resnet18", 0.25, "w2a4", 17, True)
    row = qat_pareto._trained(cfg, point)
    assert row == {"top1": 0.5, "top5": 0.9, "loss": 1.5, "train_top1": 0.75, "seconds": 12.0}
    assert list(row) == ["top1", "top5", "loss", "train_top1", "seconds"]
    del found["eval"]["top5"]
    assert math.isnan(qat_pareto._trained(cfg, point)["top5"]), "of five classes"
    assert asked == ["resnet18-0.25-w2a4-17"] * 2
    monkeypatch.setattr(run, "train", lambda recipe: None)
    with pytest.raises(StudyError, match="trains in one process; distribute the recipe instead"):
        qat_pareto._trained(cfg, point)


def test_points_are_done_once_and_those_of_other_settings_left_aside(cfg, monkeypatch, tmp_path):
    measured = []

    def stub(cfg, point):
        measured.append((cfg.edge_bits, point.bits, point.trained))
        return {"top1": len(measured) / 10}

    monkeypatch.setattr(qat_pareto, "measured", stub)
    cfg.out = str(tmp_path / "out")
    rows = qat_pareto.run(cfg)
    mine = [("none", True), ("w2a4", True), ("w8a8", False)]
    assert measured == [(5, *each) for each in mine]
    assert rows == [
        {"model_type": "resnet50", "width": "1.0", "bits": bits, "seed": "17", "trained": str(trained)}
        | {"top1": str((n + 1) / 10), "settings": cells.fingerprint(cfg, qat_pareto.SHARED)}
        for n, (bits, trained) in enumerate(mine)
    ]
    assert list(rows[0]) == [*Point._fields, "top1", "settings"]
    assert qat_pareto.run(cfg) == rows
    cfg.edge_bits, cfg.post_training = 6, []
    others = qat_pareto.run(cfg)
    assert measured[3:] == [(6, *each) for each in mine[:2]]
    assert [row["top1"] for row in others] == ["0.4", "0.5"]
    assert (tmp_path / "out/qat_pareto.csv").read_text().count("\n") == 6


def test_post_training_calibration(cfg):
    """On twenty batches; batch norm and dropout stay as in evaluation, and first and last have edge_bits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Dropout(), nn.Conv1d(3, 3, 1), nn.Flatten()
    )
    model.append(nn.Linear(15, 2))
    norm = {name: value.clone() for name, value in model[1].state_dict().items()}
    seen = []
    model.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    batches = [torch.full((4, 2, 5), float(n)) for n in range(30)]
    qat_pareto._calibrate(cfg, Point("a", 1.0, "w2a4", 17, False), model, SimpleNamespace(dataloader=batches))
    assert len(seen) == 20
    assert all(a is b for a, b in zip(seen, batches, strict=False))
    assert all(torch.equal(norm[name], value) for name, value in model[1].state_dict().items())
    assert not any(module.training for module in (model, model[1], model[2]))
    layers = [model[0], model[3], model[5]]
    assert [(layer.weight_bits, layer.activation_bits) for layer in layers] == [(5, 5), (2, 4), (5, 5)]
    assert [float(weight(layer)) for layer in layers] == pytest.approx([1 - 0.9**20] * 3)
    assert not any(layer.calibrating for layer in layers)
    assert model[0].averages.shape == (2, 1), "one bound a tensor"
    assert float(model[0].averages[0]) == pytest.approx(sum(0.1 * 0.9 ** (19 - n) * n for n in range(20)))
