"""The settings of the QAT study: bits, variants, parts, and what is wrong with them."""

import pytest
from paths import ROOT

from cadenza.recipe import RecipeError, load_settings
from cadenza.studies.qat_pareto.points import Kind, Point, points
from cadenza.studies.qat_pareto.settings import Pareto, in_bits

TENSOR = {"quantization": {"granularity": "per_tensor"}}


def made(**options):
    return Pareto(**{"recipe": ["x.yaml"], "bits": ["none", "w4a4", "w2a2"], **options})


def test_bits():
    assert in_bits("w4a4") == (4, 4)
    assert in_bits("w2a8") == (2, 8)
    assert in_bits("none") == (None, None)
    for text in ("w4", "4a4", "w4a", "wa4", "a4", "w-4a4", "w4a4a4", "w4 a4", "", "None"):
        with pytest.raises(ValueError, match=f"bits: {text!r} is neither none nor like w4a4"):
            in_bits(text)


def test_each_network_has_all_bits_and_seeds():
    cfg = made(
        model_types=["resnet18", "resnet50"], widths=[0.5, 1.0], post_training=["w4a4"], seeds=[17, 18]
    )
    found = points(cfg)
    networks = [(depth, width) for depth in ("resnet18", "resnet50") for width in (0.5, 1.0)]
    kinds = [Kind(*each, bits) for each in networks for bits in ("none", "w4a4", "w2a2")]
    kinds += [Kind(*each, "w4a4", trained=False) for each in networks]
    assert len(found) == len(set(found))
    assert set(found) == {Point(kind, seed) for kind in kinds for seed in (17, 18)}
    assert [p.kind.bits == "none" for p in found] == [True] * 8 + [False] * 24, "others start from them"
    assert [p.kind.trained for p in found] == [True] * 24 + [False] * 8
    assert len({p.name for p in found}) == 32, "each has a job and a run of its own"


def test_names():
    assert Point(Kind("resnet18", 0.0625, "w4a4"), 18).name == "resnet18-0.0625-w4a4-18"
    assert Point(Kind("resnet50", 1.0, "none", "lecun"), 17).name == "resnet50-1-none-lecun-17"
    assert Point(Kind("", None, "w8a8", trained=False), 17).name == "w8a8-after-17"
    assert Kind("resnet18", 0.25, "none").network == "resnet18 x 0.25"
    assert Kind("", None, "none").network == "the recipe's"


def test_some_bits_have_widths_of_their_own():
    cfg = made(widths=[0.5, 1.0], widths_of={"w2a2": [0.5]})
    assert {(p.kind.width, p.kind.bits) for p in points(cfg)} == {
        *((width, bits) for width in (0.5, 1.0) for bits in ("none", "w4a4")),
        (0.5, "w2a2"),
    }


def test_variants_have_points_where_they_have_an_effect():
    """Options of the quantization and a teacher in full precision have none in full precision."""
    lr = {"overrides": ["optimizer.lr=0.1"]}
    teacher = {"overrides": ["train.load_path={full}"]}
    cfg = made(variants={"tensor": TENSOR, "lr": lr, "two": {**lr, "bits": ["w2a2"]}, "teacher": teacher})
    found = {(p.kind.variant, p.kind.bits) for p in points(cfg)}
    assert found == {
        *(("base", bits) for bits in ("none", "w4a4", "w2a2")),
        *(("tensor", "w4a4"), ("tensor", "w2a2"), ("lr", "none"), ("lr", "w4a4"), ("lr", "w2a2")),
        *(("two", "w2a2"), ("teacher", "w4a4"), ("teacher", "w2a2")),
    }
    assert {p.kind.variant for p in points(made(variants={"tensor": False}))} == {"base"}


def test_the_options_of_a_point():
    cfg = made(variants={"tensor": TENSOR}, edge_bits=5, calibrate_until="7ba")
    own = {"weight_bits": 4, "activation_bits": 4, "edge_bits": 5, "calibrate_until": "7ba"}
    assert cfg.quantization("w4a4") == {**own, "granularity": "per_channel"}
    assert cfg.quantization("w4a4", "tensor") == {**own, "granularity": "per_tensor"}
    assert cfg.quantization("none") == {}


def test_parts_are_all_points_and_keep_what_starts_from_another_together():
    cfg = {"widths": [0.5, 1.0, 2.0], "seeds": [17, 18], "post_training": ["w4a4"]}
    whole = points(made(**cfg))
    parts = [points(made(**cfg, part=f"{n}/4")) for n in (1, 2, 3, 4)]
    assert sorted(point for part in parts for point in part) == sorted(whole)
    for part in parts:
        assert all(point.full in part for point in part)
    with pytest.raises(ValueError, match="part is 1/7; there are 6 parts at most"):
        points(made(**cfg, part="1/7"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"recipe": []}, "recipe is empty; it must name one at least"),
        ({"seeds": []}, "seeds is empty"),
        ({"post_training": ["w4a4", "none"]}, "post_training holds 'none', which quantizes nothing"),
        ({"post_training": ["w4a4"], "bits": ["w4a4"]}, "the points of none; add none to bits"),
        ({"bits": ["w9a4"]}, "weight_bits is 9"),
        ({"post_training": ["w4a9"]}, "activation_bits is 9"),
        ({"edge_bits": 9}, "edge_bits is 9"),
        ({"part": "0/3"}, "part is '0/3'; it must be like 1/3"),
        ({"part": "third"}, "part is 'third'; it must be like 1/3"),
        ({"widths_of": {"w8a8": [1.0]}}, "widths_of.w8a8: bits has no 'w8a8'"),
        ({"widths_of": {"w4a4": [2.0]}}, r"widths_of.w4a4 is \[2.0\]; it must be a list of values of widths"),
        ({"variants": {"base": TENSOR}}, "variants.base: the name must be"),
        ({"variants": {"a/b": TENSOR}}, "variants.a/b: the name must be"),
        ({"variants": {"x": {}}}, "variants.x changes nothing"),
        ({"variants": {"x": {"overide": ["a=1"]}}}, "variants.x.overide is no key of it"),
        ({"variants": {"x": {"quantization": ["a"]}}}, "variants.x.quantization is .*; it must be a mapping"),
        (
            {"variants": {"x": {"quantization": {"weight_bits": 4}}}},
            "sets weight_bits, which the setting bits",
        ),
        ({"variants": {"x": {"quantization": {"granularity": "row"}}}}, "granularity is 'row'"),
        (
            {"variants": {"x": {"overrides": ["algorithms.quantization_aware_training.edge_bits=4"]}}},
            "name them",
        ),
        ({"variants": {"x": {"overrides": ["seed=4"]}}}, "sets what the settings seeds, widths and"),
        (
            {"variants": {"x": {**TENSOR, "bits": ["w8a8"]}}},
            "variants.x.bits names 'w8a8', which isn't in bits",
        ),
        ({"variants": {"x": {**TENSOR, "bits": ["none"]}}}, "variants.x has no points"),
        (
            {"variants": {"x": {"overrides": ["train.load_path={full}"]}}, "bits": ["w4a4"]},
            r"variants.x names \{full\}, a point of none; add none to bits",
        ),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        made(**options)


@pytest.mark.parametrize(
    ("files", "trained", "after"),
    [
        (["qat_pareto"], 45, 30),
        (["qat_pareto", "scale/cpu_pareto"], 36, 27),
        (["qat_fidelity"], 81, 0),
        (["qat_text"], 12, 9),
    ],
)
def test_what_the_packaged_settings_say_of_their_points(files, trained, after):
    cfg = load_settings(Pareto, [str(ROOT / f"yamls/{name}.yaml") for name in files], [])
    found = [point.kind.trained for point in points(cfg)]
    assert (found.count(True), found.count(False)) == (trained, after)


def test_a_recipe_is_no_settings():
    with pytest.raises(RecipeError, match=r"resnet50_bf16\.yaml: unknown key"):
        load_settings(Pareto, [str(ROOT / "yamls/resnet50_bf16.yaml")], [])
