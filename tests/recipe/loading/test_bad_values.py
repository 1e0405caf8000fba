"""Bad values of every kind, in files and pairs: one line, which names the source and the key."""

import warnings

import pytest
from paths import ROOT

from cadenza.recipe import RecipeError, load

BASE = [str(ROOT / "yamls/mosaicbert.yaml"), str(ROOT / "yamls/scale/cpu.yaml")]
LIST = "is no key; a list is set as a whole, such as optimizer.betas=[1,2]"
SGD = "optimizer.name=sgd"
CONSTANT = "scheduler.name=constant_with_warmup"

PAIRS = {
    "train.eval_interval=0ba": "train.eval_interval is '0ba'; it must be above zero",
    "train.eval_interval=-1ba": "train.eval_interval is '-1ba'; it must be above zero",
    "train.save_interval=0ep": "train.save_interval is '0ep'; it must be above zero",
    "train.max_duration=0ba": "train.max_duration is '0ba'; it must be above zero",
    "train.max_duration=-2ba": "train.max_duration is '-2ba'; it must be above zero",
    "train.max_duration=1dur": "train.max_duration is '1dur'; it must say how long all of training is",
    "train.max_duration=2": "train.max_duration is 2; it must have a unit, such as 2ep",
    "train.max_duration=1e300ba": "train.max_duration is '1e300ba'; it must be at most 1e+15",
    "train.max_duration=.inf": "train.max_duration is inf; it must be a finite number",
    "scheduler.t_warmup=2dur": "scheduler.t_warmup is '2dur'; it must be at most 1dur, which is all",
    "scheduler.t_warmup=-1ba": "scheduler.t_warmup is '-1ba'; it must not be negative",
    "scheduler.t_warmup=5sp": "scheduler.t_warmup is 5sp, but train.max_duration is 900ba; name a time in",
    "scheduler.alpha_f=-3": "scheduler.alpha_f is -3; it must be at least 0",
    "data.eval_documents=-1": "data.eval_documents is -1; it must be at least 1",
    "data.max_seq_len=99999999999": "data.max_seq_len is 99999999999; it must be at most 16777216",
    "data.num_workers=-1": "data.num_workers is -1; it must be at least 0",
    "train.eval_batch_size=0": "train.eval_batch_size is 0; it must be at least 1",
    "train.global_batch_size=0": "train.global_batch_size is 0; it must be at least 1",
    "train.device_train_microbatch_size=all": "device_train_microbatch_size is 'all'; it must be auto or",
    "train.precision=fp64": "train.precision is 'fp64'; it must be auto, fp32, amp_bf16, amp_fp16 or amp_fp8",
    "train.run_folder=": "train.run_folder is None (NoneType); it must be text",
    "optimizer.lr=-1": "optimizer.lr is -1; it must be at least 0",
    "optimizer.lr=.nan": "optimizer.lr is nan; it must be a finite number",
    "optimizer.lr=1" + "0" * 400: "optimizer.lr is 1000",
    "optimizer.betas=[.9]": "optimizer.betas is [0.9]; it must hold 2 values",
    "optimizer.betas=[.9,.9,.9]": "optimizer.betas is [0.9, 0.9, 0.9]; it must hold 2 values",
    "optimizer.betas=[.9,1.1]": "optimizer.betas[1] is 1.1; it must lie in [0, 1)",
    "optimizer.betas[0]=.5": f"optimizer.betas[0] {LIST}",
    "optimizer.betas={a: 1}": "optimizer.betas must be a list, not {'a': 1}",
    "optimizer.weight_decay=-1": "optimizer.weight_decay is -1; it must be at least 0",
    "optimizer.name=adam": "optimizer.name is 'adam'; it must be decoupled_adamw, "
    "adamw, sgd, muon or stable_adamw",
    "seed=-1": "seed is -1; it must be at least 0",
    "seed=4294967296": "seed is 4294967296; it must be at most 4294967295",
    "model=[1,2]": "model must be a mapping, not [1, 2]",
    "model=3": "model must be a mapping, not 3",
    "data=[1]": "data must be a mapping, not [1]",
    "model.lora={r:": "model.lora={r:: not valid YAML (",
    "model.config.x=[1,.inf]": "model.config.x[1] is inf; it must be a finite number",
    "model.attention=fast": "model.attention is 'fast'; it must be sdpa or eager",
    "tokenizer.vocab_size=0": "tokenizer.vocab_size is 0; it must be at least 300",
    "algorithms.alibi.stage=foo": "unknown key algorithms.alibi.stage; valid: prove, strict",
    "algorithms.unpadding.claims=[]": "unknown key algorithms.unpadding.claims; valid: prove, strict",
    "algorithms.glu=[a]": "algorithms.glu must be a mapping, not ['a']",
    "algorithms=alibi": "algorithms is 'alibi' (str); it must be a mapping",
    "algorithms.vocab_padding.multiple=1e12": "algorithms.vocab_padding.multiple is 1000000000000.0 (float)",
    "algorithms.vocab_padding.multiple=1000000000000": "multiple is 1000000000000; it must be at most 65536",
    "algorithms.glu.intermediate_size=1.5": "glu intermediate_size is 1.5; it must be a positive int",
    "algorithms.glu.intermediate_size=.nan": "algorithms.glu.intermediate_size is nan; it must be a finite",
    "algorithms.masking_schedule={initial: 1.5}": "masking_schedule.initial is 1.5; it must lie in (0, 1)",
    "algorithms.anchor_attention={}": "anchor_attention is for causal_lm; model.objective is masked_lm",
}


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_is_refused(pair):
    said = refused(BASE, [pair])
    assert said.startswith("command line: ")
    assert PAIRS[pair] in said


def refused(files, pairs=()):
    with pytest.raises(RecipeError) as error:
        load(files, list(pairs))
    assert "\n" not in str(error.value)
    return str(error.value)


TOGETHER = [
    (
        [SGD, "optimizer.nesterov=true", "optimizer.momentum=0"],
        "momentum is 0, but optimizer.nesterov needs",
    ),
    (
        ["algorithms.sequence_packing={}", "algorithms.anchor_attention={}"],
        "sequence_packing packs rows of masked_lm, anchor_attention windows of causal_lm; leave one",
    ),
]


@pytest.mark.parametrize(("pairs", "message"), TOGETHER)
def test_values_that_do_not_go_together(pairs, message):
    assert message in refused(BASE, pairs)


OVERLAYS = {
    "algorithms: [alibi]": "algorithms must be a mapping, not ['alibi']",
    "algorithms: {glu: {variant: x}}": "algorithms.glu.variant is 'x'; it must be geglu, swiglu or reglu",
    "algorithms: {quantization_aware_training: {weight_bits: , activation_bits: }}": "are both null",
    "model: {config: [1]}": "model.config must be a mapping, not [1]",
    "seed: -1": "seed is -1; it must be at least 0",
    "name: ${name}": "Recursive interpolation detected",
    "data: {source: '${nothing}'}": "Interpolation key 'nothing' not found",
    "optimizer: {betas: {a: 1}}": "optimizer.betas must be a list, not {'a': 1}",
    "a: &a [*a]": "not valid YAML (YAML recursive aliases are not supported",
}


@pytest.mark.parametrize("text", OVERLAYS)
def test_an_error_in_an_overlay_names_the_overlay(text, tmp_path):
    overlay = tmp_path / "over.yaml"
    overlay.write_text(text)
    said = refused([*BASE, str(overlay)])
    assert said.startswith(f"{overlay}: ")
    assert OVERLAYS[text] in said


def test_an_unquoted_pair_is_told_to_need_quotes():
    said = refused(BASE, ["model.lora={r:", "4}"])
    assert said.endswith("in a shell a pair with spaces needs quotes: 'model.lora={r: ...'")


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "dir.yaml").mkdir()
    assert refused([str(tmp_path / "dir.yaml")]).endswith(
        "dir.yaml: this is a folder; a recipe is a .yaml file"
    )


def told(files, *pairs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(files, list(pairs))
    return [str(each.message) for each in caught]


def test_an_empty_recipe_says_that_it_is_the_default_one(tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing yet\n")
    assert told([str(empty)]) == [f"{empty} holds no keys: this is the default recipe"]
    assert told([*BASE, str(empty)]) == [f"{empty} holds no keys: it changes nothing"]


@pytest.mark.parametrize(
    ("pairs", "key", "why"),
    [
        (["optimizer.momentum=.5"], "optimizer.momentum", "optimizer.name is decoupled_adamw"),
        ([SGD], "optimizer.betas", "optimizer.name is sgd"),
        (
            ["scheduler.name=constant_with_warmup"],
            "scheduler.alpha_f",
            "scheduler.name is constant_with_warmup",
        ),
        (["data.domain_tag=x"], "data.domain_tag", "model.objective is masked_lm"),
        (["tokenizer.name=./words"], "tokenizer.vocab_size", "tokenizer.name is ./words"),
    ],
)
def test_keys_without_effect_are_named(pairs, key, why):
    assert any(line.endswith(f": {key} has no effect: {why}") for line in told(BASE, *pairs))


def test_only_keys_that_are_set_are_named():
    assert told(BASE) == []
    assert told(BASE, "data.domain_tag=null") == []
    assert told([], "model.objective=causal_lm") == []
    lines = told([], "model.objective=causal_lm", "data.mlm_probability=.2")
    assert lines == ["command line: data.mlm_probability has no effect: model.objective is causal_lm"]
