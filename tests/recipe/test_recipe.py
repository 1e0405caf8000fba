"""Recipes: merging, checking, and the one line that says what's wrong."""

from pathlib import Path

import pytest
import yaml
from cases import REQUIRED
from paths import ROOT
from recipe_files import RECIPES, STUDIES, stem

from cadenza.algorithms import REGISTRY
from cadenza.recipe import Recipe, RecipeError, build, load, resolved
from cadenza.recipe.parallelism import parallelism
from cadenza.recipe.schema import ClassificationRecipe, ImageRecipe
from cadenza.surgery import SurgeryError

EAGER = str(ROOT / "yamls/attention/eager.yaml")
BASELINES = sorted({str(path) for path in (ROOT / "yamls" / "attention").glob("*.yaml")} - {EAGER})
OVERLAYS = sorted(str(path) for path in (ROOT / "yamls" / "scale").glob("*.yaml") if path.name not in STUDIES)
FOR_IMAGES = [path for path in RECIPES if "resnet" in path]
PAIRS = [
    (recipe, overlay)
    for recipe in RECIPES
    for overlay in (None, *OVERLAYS)
    if "cpu" not in str(overlay) or ("images" in str(overlay)) == (recipe in FOR_IMAGES)
    if not ("cpu" in str(overlay) and "finetune" in recipe)  # its sizes are those of the model
]


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_there_are_recipes():
    names = {Path(path).stem for path in RECIPES}
    assert names >= {"mosaicbert", "mosaicbert_large", "bert", "bert_large"}
    assert {Path(path).stem for path in OVERLAYS} >= {"cpu", "8xgpu"}


@pytest.mark.parametrize("recipe", [path for path in RECIPES if "anchor_" in path], ids=stem)
@pytest.mark.parametrize("baseline", BASELINES, ids=stem)
def test_every_long_recipe_takes_every_baseline(recipe, baseline):
    loaded = load([recipe, baseline], [])
    (anchor,) = (a for a in build.algorithms(loaded.algorithms) if type(a).__name__ == "AnchorAttention")
    assert anchor.mode in baseline
    assert anchor.reset_positions == ("reset" in baseline)
    field = "meta.redpajama_set_name" if "tag" in baseline else None
    assert loaded.data.domain_field == field
    assert "{domain}" in loaded.data.domain_format


THETAS = {32768: 1e6, 65536: 5e6, 131072: 1e7}  # of the paper's table 1
LONG = {"anchor_llama2_7b_64k", "anchor_llama2_7b_128k", "anchor_llama3_8b_128k", "anchor_mistral_7b_128k"}


@pytest.mark.parametrize("name", sorted({*LONG, "anchor_qwen3_8b_128k", "long_context"}))
def test_a_long_recipe_is_the_papers(name):
    recipe = load([str(ROOT / f"yamls/{name}.yaml")], [])
    assert recipe.train.max_duration == "2000ba"
    assert recipe.train.clip_norm == 1.0
    assert recipe.train.global_batch_size == 8
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (2e-5, 0.1)
    assert recipe.model.config["max_position_embeddings"] == recipe.data.max_seq_len
    assert recipe.model.config["rope_parameters"]["rope_theta"] == THETAS[recipe.data.max_seq_len]
    bos_ends_nothing = name in LONG
    assert (recipe.data.anchor_token is None) == bos_ends_nothing


def test_where_gradients_are_clipped():
    norms = {Path(path).stem: load([path], []).train.clip_norm for path in RECIPES}
    clipped = {name: norm for name, norm in norms.items() if norm is not None}
    assert clipped.pop("qlora") == 0.3
    assert clipped == dict.fromkeys({*LONG, "anchor_qwen3_8b_128k", "long_context", "drop_rope"}, 1.0)


def test_a_gradient_is_clipped_by_one_key():
    pairs = "train.clip_norm=1", "algorithms.gradient_clipping={clipping_type: norm, clipping_threshold: 1}"
    with pytest.raises(RecipeError, match=r"train\.clip_norm and algorithms\.gradient_clipping are set"):
        load([], list(pairs))
    assert load([], [*pairs, "algorithms.gradient_clipping=false"]).train.clip_norm == 1
    assert load([], [pairs[1]]).train.clip_norm is None


def test_a_batch_that_cannot_grow_is_refused_before_anything_runs():
    pairs = [
        "algorithms.batch_size_warmup={initial: 16}",
        "train.global_batch_size=16",
        "train.max_duration=9ba",
    ]
    with pytest.raises(RecipeError, match=r"initial is 16; it must be below train\.global_batch_size, 16"):
        load([], pairs)
    assert load([], [*pairs, "train.global_batch_size=17"]).algorithms["batch_size_warmup"]["initial"] == 16


@pytest.mark.parametrize(("recipe", "overlay"), PAIRS, ids=stem)
def test_every_recipe_takes_every_overlay(recipe, overlay):
    loaded = load([recipe] + ([overlay] if overlay else []), [])
    of_labels = ClassificationRecipe if stem(recipe) == "finetune" else Recipe
    assert type(loaded) is (ImageRecipe if recipe in FOR_IMAGES else of_labels)
    assert len(build.algorithms(loaded.algorithms)) == len(loaded.algorithms)


def test_the_other_kinds_small_overlay_is_refused_by_name():
    mosaicbert, resnet50 = (str(ROOT / f"yamls/{name}.yaml") for name in ("mosaicbert", "resnet50_bf16"))
    small, pixels = (str(ROOT / f"yamls/scale/{name}.yaml") for name in ("cpu", "cpu_images"))
    with pytest.raises(RecipeError, match=r"cpu_images\.yaml: unknown key model\.width"):
        load([mosaicbert, pixels], [])
    with pytest.raises(RecipeError, match=r"cpu\.yaml: unknown key model\.config"):
        load([resnet50, small], [])


def test_mosaicbert_is_the_papers():
    recipe = load([str(ROOT / "yamls/mosaicbert.yaml")], [])
    assert recipe.model.config["attention_probs_dropout_prob"] == 0.0
    assert recipe.data.mlm_probability == 0.30
    assert recipe.data.eval_mlm_probability == 0.15
    assert recipe.data.max_seq_len == 128
    assert (recipe.optimizer.lr, recipe.optimizer.betas) == (5e-4, [0.9, 0.98])
    assert (recipe.optimizer.eps, recipe.optimizer.weight_decay) == (1e-6, 1e-5)
    assert (recipe.scheduler.t_warmup, recipe.scheduler.alpha_f) == ("0.06dur", 0.02)
    assert recipe.train.max_duration == "286720000sp"
    assert recipe.train.global_batch_size == 4096
    assert recipe.seed == 17
    architecture = {"alibi", "glu", "low_precision_norm", "vocab_padding"}
    assert set(recipe.algorithms) == architecture | {"unpadding", "sparse_prediction", "flash_attention"}


def test_the_cpu_overlay_replaces_sizes_and_data_alone():
    overlay = yaml.safe_load((ROOT / "yamls/scale/cpu.yaml").read_text())
    assert set(overlay) <= {"model", "tokenizer", "data", "optimizer", "train"}
    assert set(overlay["optimizer"]) == {"lr"}


def test_later_wins_and_false_leaves_out(tmp_path):
    base = write(tmp_path, "seed: 1\nalgorithms: {alibi: , glu: {variant: swiglu}}\n")
    over = write(tmp_path, "seed: 2\nalgorithms: {glu: {intermediate_size: 64}}\n", "over.yaml")
    recipe = load([base, over], ["train.max_duration=5ba", "algorithms.alibi=false"])
    assert recipe.seed == 2
    assert recipe.train.max_duration == "5ba"
    assert recipe.algorithms == {"glu": {"variant": "swiglu", "intermediate_size": 64}}
    assert yaml.safe_load(resolved(recipe))["algorithms"] == recipe.algorithms


WRONG = {
    "unknown key": ("sede: 3", r"mine.yaml: unknown key sede; did you mean 'seed'\?"),
    "nested key": ("train: {max_durations: 3ba}", r"unknown key train.max_durations; did you mean 'max_dura"),
    "technique": ("algorithms: {alibbi: {}}", r"unknown technique algorithms.alibbi; did you mean 'alibi'\?"),
    "option": ("algorithms: {glu: {varient: x}}", r"algorithms.glu.varient; did you mean 'variant'\?"),
    "option value": (
        "algorithms: {glu: {variant: gelu}}",
        r"mine.yaml: algorithms.glu.variant is 'gelu'; it must be geglu, swiglu or reglu",
    ),
    "type": ("seed: many", r"mine.yaml: seed is 'many' \(str\); it must be an integer"),
    "bool for int": ("seed: true", r"seed is True \(bool\); it must be an integer"),
    "list": ("optimizer: {betas: 0.9}", r"optimizer.betas is 0.9 \(float\); it must be a list of a number"),
    "section": ("train: 5", r"mine.yaml: train must be a mapping"),
    "time": (
        "train: {max_duration: 5 minutes}",
        r"train.max_duration is '5 minutes'; it must be a number with",
    ),
    "data value": ("data: {mlm_probability: 1.5}", r"mine.yaml: .*mlm_probability"),
    "yaml": ("seed: [1", r"mine.yaml: not valid YAML"),
    "no mapping": ("- 1", r"mine.yaml: a recipe is a mapping"),
    "interpolation": ("seed: ${nothing}", r"mine.yaml: .*nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said(case, tmp_path):
    text, message = WRONG[case]
    with pytest.raises((RecipeError, SurgeryError), match=message) as error:
        load([write(tmp_path, text)], [])
    assert "\n" not in str(error.value)


def test_the_blame_falls_on_the_last_that_spoke(tmp_path):
    base, over = write(tmp_path, "seed: 1"), write(tmp_path, "seed: x", "over.yaml")
    with pytest.raises(RecipeError, match=r"over.yaml: seed is 'x'"):
        load([base, over], [])
    with pytest.raises(RecipeError, match="command line: seed is 'y'"):
        load([base, over], ["seed=y"])
    with pytest.raises(RecipeError, match=r"command line: 'seed' is neither a .yaml file nor key=value"):
        load([base], ["seed"])


def test_a_missing_file_names_its_neighbour(tmp_path):
    write(tmp_path, "seed: 1", "mosaicbert.yaml")
    with pytest.raises(
        RecipeError, match=r"mosiacbert.yaml: there is no such file; did you mean '.*mosaicbert"
    ):
        load([str(tmp_path / "mosiacbert.yaml")], [])


def test_auto_becomes_what_the_device_allows():
    assert build.microbatch_size("auto", 32, cuda=False) == 32
    assert build.microbatch_size("auto", 32, cuda=True) == "auto"
    assert build.microbatch_size(64, 32, cuda=False) == 32
    for wrong in ("many", 0):
        with pytest.raises(RecipeError, match="must be auto or a positive int"):
            build.microbatch_size(wrong, 32, cuda=False)
    with pytest.raises(RecipeError, match=r"train.x is 10; it must be a multiple of the 4 devices"):
        build.per_device(10, 4, "train.x")


def test_names_of_parts():
    for section, name, near in (
        (build.loggers, {"tensorbord": {}}, "tensorboard"),
        (build.scheduler, _named("linear_decay"), "linear_decay_with_warmup"),
    ):
        with pytest.raises(RecipeError, match=f"did you mean '{near}'"):
            section(name)


def _named(name):
    from cadenza.recipe.schema import Scheduler

    return Scheduler(name=name)


def test_every_technique_can_be_said_in_yaml():
    for name, cls in REGISTRY.items():
        assert repr(build.algorithms({name: REQUIRED[name]})[0]) == repr(cls(**REQUIRED[name]))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"fsdp3": {}}, r"unknown key train.parallelism_config.fsdp3; did you mean 'fsdp'\?"),
        (
            {"fsdp2": {"mixed_precison": "PURE"}},
            r"unknown key .*fsdp2.mixed_precison; did you mean 'mixed_precision'\?",
        ),
        ({"fsdp": {"state_dict_type": "sharded"}}, "state_dict_type is 'sharded'; it must be 'full'"),
        ({"fsdp": None, "fsdp2": {}}, "has both fsdp and fsdp2"),
        ({"fsdp": {}}, "FSDP shards over CUDA devices, and there is none; leave it out"),
    ],
)
def test_a_parallelism_that_is_none(section, message):
    with pytest.raises(RecipeError, match=message):
        parallelism(section, cuda=False)


@pytest.mark.parametrize("name", ["fsdp", "fsdp2"])
def test_composers_parallelism_config(name):
    config = getattr(parallelism({name: {"mixed_precision": "PURE"}}, cuda=True), name)
    assert (config.mixed_precision, config.state_dict_type) == ("PURE", "full")
    assert parallelism({}, cuda=False) is None


def test_except_is_a_key_of_quantization(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "algorithms: {post_training_quantization: {format: int8, except: ['*.mlp.*']}}"
    )
    loaded = load([str(tmp_path / "a.yaml")], [])
    (quantization,) = build.algorithms(loaded.algorithms)
    assert quantization.except_ == ["*.mlp.*"]
