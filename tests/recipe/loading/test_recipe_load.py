"""A recipe's loading: merging, types, times, and whom an error blames."""

from dataclasses import dataclass, field, fields

import pytest

from cadenza.recipe import RecipeError, load, load_settings
from cadenza.recipe.errors import nearest
from cadenza.recipe.schema import Model, Recipe


@dataclass
class Part:
    size: int = 1


@dataclass
class Settings:
    """A field of each type that a recipe has."""

    whole: int = 1
    number: float = 1.0
    words: str = "a"
    flag: bool = False
    table: dict = field(default_factory=dict)
    numbers: list[float] = field(default_factory=list)
    maybe: int | None = 3
    either: int | str = "auto"
    part: Part = field(default_factory=Part)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes files of these contents; their names."""
    monkeypatch.chdir(tmp_path)

    def files(*contents):
        names = [f"{letter}.yaml" for letter in "abc"[: len(contents)]]
        for name, content in zip(names, contents, strict=True):
            (tmp_path / name).write_text(content)
        return names

    return files


FITS = {
    "whole": [("3", 3), ("-1", -1)],
    "number": [("3", 3.0), ("0.5", 0.5), ("1e-3", 0.001)],
    "words": [("b", "b"), ("'3'", "3")],
    "flag": [("true", True), ("false", False)],
    "table": [("{a: {b: 1}}", {"a": {"b": 1}}), ("null", {}), ("{}", {})],
    "numbers": [("[1, 0.5]", [1, 0.5]), ("[]", [])],
    "maybe": [("null", None), ("4", 4)],
    "either": [("4", 4), ("x", "x")],
    "part": [("{size: 4}", Part(4)), ("null", Part(1)), ("{}", Part(1))],
}


@pytest.mark.parametrize(
    ("key", "text", "value"), [(k, *pair) for k, pairs in FITS.items() for pair in pairs]
)
def test_values_that_fit(key, text, value, files):
    found = getattr(load_settings(Settings, files(f"{key}: {text}"), []), key)
    assert (found, type(found)) == (value, type(value))
    assert getattr(load_settings(Settings, [], [f"{key}={text}"]), key) == value


WRONG = {
    "whole": [
        ("1.5", "1.5 (float)"),
        ("true", "True (bool)"),
        ("null", "None (NoneType)"),
        ("[1]", "[1] (list)"),
    ],
    "number": [("x", "'x' (str)"), ("false", "False (bool)"), ("null", "None (NoneType)")],
    "words": [("3", "3 (int)"), ("true", "True (bool)"), ("null", "None (NoneType)")],
    "flag": [("1", "1 (int)"), ("x", "'x' (str)")],
    "table": [("3", "3 (int)"), ("[1]", "[1] (list)")],
    "numbers": [("1", "1 (int)"), ("[1, x]", "[1, 'x'] (list)"), ("[true]", "[True] (list)")],
    "maybe": [("x", "'x' (str)"), ("true", "True (bool)"), ("0.5", "0.5 (float)")],
    "either": [("0.5", "0.5 (float)"), ("null", "None (NoneType)"), ("true", "True (bool)")],
}
WORDS = {
    "whole": "an integer",
    "number": "a number",
    "words": "text",
    "flag": "true or false",
    "table": "a mapping",
    "numbers": "a list of a number",
    "maybe": "an integer or null",
    "either": "an integer or text",
}


@pytest.mark.parametrize(
    ("key", "text", "said"), [(k, *pair) for k, pairs in WRONG.items() for pair in pairs]
)
def test_values_that_do_not_fit(key, text, said, files):
    with pytest.raises(RecipeError) as error:
        load_settings(Settings, files(f"{key}: {text}"), [])
    assert str(error.value) == f"a.yaml: {key} is {said}; it must be {WORDS[key]}"


def test_every_type_is_tried():
    assert set(FITS) == {f.name for f in fields(Settings)} == {*WRONG, "part"}


def test_later_files_and_then_pairs_win(files):
    names = files("whole: 1\nnumber: 1\nwords: a\ntable: {x: 1, y: 1}", "number: 2\nwords: b\ntable: {y: 2}")
    found = load_settings(Settings, names, ["words=c", "table.z=3", "words=d"])
    assert (found.whole, found.number, found.words) == (1, 2, "d")
    assert found.table == {"x": 1, "y": 2, "z": 3}


def test_a_value_may_name_another(files):
    assert load_settings(Settings, files("whole: 3\nwords: run-${whole}"), ["whole=4"]).words == "run-4"


def refused(names, pairs=()):
    with pytest.raises(RecipeError) as error:
        load(names, list(pairs))
    assert "\n" not in str(error.value)
    return str(error.value)


UNITS = "it must be a number with a unit, such as 70000ba, 1ep"


@pytest.mark.parametrize(
    "key",
    [
        "train.max_duration",
        "train.eval_interval",
        "train.save_interval",
        "scheduler.t_warmup",
        "scheduler.t_cooldown",
    ],
)
def test_every_time_is_read(key, files):
    section, name = key.split(".")
    said = refused(files(f"{section}: {{{name}: soon}}", "seed: 3"))
    assert said.startswith(f"a.yaml: {key} is 'soon'; {UNITS}")
    assert getattr(getattr(load([], [f"{key}=7ba"]), section), name) == "7ba"


TEXT_KEYS = "algorithms, data, loggers, model, name, optimizer, scheduler, seed, tokenizer, train"


@pytest.mark.parametrize(
    ("contents", "pairs", "message"),
    [
        (["seed: 1", "zzz: 1"], [], f"b.yaml: unknown key zzz; valid: {TEXT_KEYS}"),
        (["zzz: 1", "zzz: 2", "seed: 1"], [], f"b.yaml: unknown key zzz; valid: {TEXT_KEYS}"),
        (["zzz: 1"], ["zzz=2"], f"command line: unknown key zzz; valid: {TEXT_KEYS}"),
        (["seed: 1", "train: 5", "name: a"], [], "b.yaml: train must be a mapping, not 5"),
        (["seed: 1", "algorithms: {glu: 5}"], [], "b.yaml: algorithms.glu must be a mapping, not 5"),
        (
            ["seed: 1", "train: {3: 1}"],
            [],
            "b.yaml: unknown key train.3; valid: autoresume, clip_norm,",
        ),
        (
            ["seed: 1", "algorithms: {zzzz: {}}", "name: a"],
            [],
            "b.yaml: unknown technique algorithms.zzzz; valid: alibi, anchor_attention,",
        ),
        (
            ["data: {mlm_probability: 2}", "data: {max_seq_len: 9}"],
            [],
            "a.yaml: data.mlm_probability is 2; it must lie in (0, 1)",
        ),
        (["name: a", "name: /a", "seed: 1"], [], "b.yaml: name is '/a'; it must name a folder"),
        (
            ["model: {objective: image_classification}", "name: /a", "seed: 1"],
            [],
            "b.yaml: name is '/a'; it must name a folder",
        ),
        (["seed: 1"], ["seed"], "command line: 'seed' is neither a .yaml file nor key=value"),
        (["seed: 1"], ["=3"], "command line: '=3' is neither a .yaml file nor key=value"),
        (["seed: 1"], ["seed=[1,"], "command line: seed=[1,: not valid YAML ("),
        (["seed: 1"], ["seed=${"], "command line: seed=${: not valid YAML ("),
        (["name: a", "seed: ???"], [], "b.yaml: seed is '???' (str); it must be an integer"),
        (["'a.b': 1"], [], "a.yaml: unknown key a.b; valid: algorithms,"),
        (["data: {num_workers: 0}", "data: [1]", "seed: 1"], [], "b.yaml: data must be a mapping, not [1]"),
        (["seed: 1", "model: [1]"], [], "b.yaml: model must be a mapping, not [1]"),
        (["model: ${oc.env:NO_SUCH}"], [], "a.yaml: KeyError raised while resolving interpolation"),
        (["seed: 1", "train: ${loggers}", "loggers: {x: 3}"], [], "b.yaml: unknown key train.x; valid:"),
        (["seed: 1", "- 1"], [], "b.yaml: a recipe is a mapping of keys to values"),
        (["seed: 1", "seed: [1"], [], "b.yaml: not valid YAML ("),
        (["name: a", "name: ${nothing}"], [], "b.yaml: Interpolation key 'nothing' not found"),
        (["model: {objective: xyz}"], [], "a.yaml: model.objective is 'xyz'; valid: causal_lm, image_class"),
        (["seed: 1", "model: {objective: 3}"], [], "b.yaml: model.objective is 3 (int); it must be text"),
        (
            ["model: {objective: causal_lm}", "algorithms: {sparse_prediction: }"],
            [],
            "b.yaml: algorithms.sparse_prediction is for masked_lm; model.objective is causal_lm",
        ),
    ],
)
def test_what_is_wrong_and_where(contents, pairs, message, files):
    assert refused(files(*contents), pairs).startswith(message)


def test_an_objective_that_there_is_not():
    with pytest.raises(
        ValueError, match=r"model\.objective is 'mlm'; it must be masked_lm, causal_lm, text_class"
    ):
        Model(objective="mlm")


def test_no_file_and_no_pair_is_a_recipe_of_defaults():
    assert load([], []) == Recipe()


@pytest.mark.parametrize("name", ["sparse_prediction", "sequence_packing", "masking_schedule"])
@pytest.mark.parametrize("objective", ["causal_lm", "image_classification"])
def test_techniques_of_masked_models_alone(name, objective):
    pairs = [f"model.objective={objective}", f"algorithms.{name}={{}}"]
    message = f"command line: algorithms.{name} is for masked_lm; model.objective is {objective}"
    assert refused([], pairs) == message
    assert load([], [*pairs, f"algorithms.{name}=false"]).algorithms == {}
    assert load([], [pairs[1]]).algorithms == {name: {}}


@pytest.mark.parametrize("on", ["", "null", "true", "{}"])
def test_a_technique_is_on_without_options(on, files):
    assert load(files(f"algorithms: {{glu: {on} }}"), []).algorithms == {"glu": {}}
    assert load(["a.yaml"], ["algorithms.glu=false"]).algorithms == {}
    assert load(["a.yaml"], ["algorithms.glu=false", "algorithms.glu.variant=reglu"]).algorithms == {
        "glu": {"variant": "reglu"}
    }


def test_a_missing_file(files, tmp_path):
    files("seed: 1")
    assert refused(["q.yaml"]) == "q.yaml: there is no such file; did you mean 'a.yaml'?"
    assert refused(["zz/zz.yml"]) == "zz/zz.yml: there is no such file; valid: yamls/*.yaml"
    (tmp_path / "empty").mkdir()
    assert refused(["empty/zz.yaml"]).startswith("empty/zz.yaml: there is no such file; ")
    assert refused(["empty"]) == "empty: this is a folder; a recipe is a .yaml file"


def test_the_nearest_name():
    assert nearest("abcd", ["zzzz", "abxd", "abcx"]) == "did you mean 'abxd'?"
    assert nearest("abcd", ["xycd", "qqqq"]) == "did you mean 'xycd'?", "half of it is enough"
    assert nearest("abcd", ["xyzd", "b"]) == "valid: b, xyzd"


@dataclass
class Needs:
    """Fields without a default."""

    whole: int
    words: str
    maybe: int | None = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("words: a", "a.yaml: whole is missing; it must be an integer"),
        ("whole: 1", "a.yaml: words is missing; it must be text"),
        ("{}", "a.yaml: whole is missing; it must be an integer"),
    ],
)
def test_a_field_without_a_default_must_be_there(text, message, files):
    with pytest.raises(RecipeError, match=f"^{message}$"):
        load_settings(Needs, files(text), [])
    assert load_settings(Needs, files("whole: 1"), ["words=a"]) == Needs(1, "a")
