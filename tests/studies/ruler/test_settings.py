"""Settings: how models are named, and what is refused, with its key."""

import pytest

from cadenza.recipe import RecipeError, load_settings
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.ruler.tasks.table import RULER


def settings(*pairs):
    return load_settings(Ruler, [], list(pairs))


@pytest.mark.parametrize(
    ("pair", "groups"),
    [
        ("models=[runs/a,b]", {"a": ["runs/a"], "b": ["b"]}),
        ("models=[x/model,y/model,z]", {"x/model": ["x/model"], "y/model": ["y/model"], "z": ["z"]}),
        ("models={full: [a, b], anchor: c}", {"full": ["a", "b"], "anchor": ["c"]}),
        ("models={full: a, none: null}", {"full": ["a"]}),
    ],
)
def test_models_in_a_list_and_by_name(pair, groups):
    assert settings(pair).groups() == groups


def test_defaults_are_the_paper_s_tasks():
    cfg = settings("models=[a]")
    assert cfg.tasks == list(RULER)
    assert (cfg.prose, cfg.qa_1, cfg.qa_2, cfg.seeds) == ("python_docs", None, None, [0])


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("models=[]", "models is empty"),
        ("models={}", "models is empty"),
        ("models={a: null}", "models is empty"),
        ("models=a", r"models is 'a' \(str\); it must be a list of text or a mapping"),
        ("models=[a,a]", r"models is \['a', 'a'\]; each must be there once"),
        ("models={a: []}", "models.a is empty"),
        ("models={a: [x, x]}", r"models.a is \['x', 'x'\]; each must be there once"),
        ("models={a: [1]}", "models.a is 1; it must be a text"),
        ("models={a: ' '}", "models.a is ' '; it must be a text"),
        ("lengths=[]", "lengths is empty"),
        ("lengths=[0]", r"lengths\[0\] is 0; it must be at least 1"),
        ("lengths=[1024,1024]", "lengths is .*each must be there once"),
        ("tasks=[niah]", r"tasks\[0\] is 'niah'; it must be niah_single_1, .* or key_value"),
        ("seeds=[-1]", r"seeds\[0\] is -1; it must be at least 0"),
        ("examples=0", "examples is 0; it must be at least 1"),
        ("batch_size=0", "batch_size is 0; it must be at least 1"),
        ("dtype=half", "dtype is 'half'; it must be float32, bfloat16 or float16"),
        ("qa_1=''", "qa_1 is ''; it must be a text"),
        ("lenghts=[1]", "unknown key lenghts; did you mean 'lengths'?"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(pair, message):
    with pytest.raises(RecipeError, match=message):
        settings("models=[a]" if not pair.startswith("models") else pair, pair)
