"""The settings, the recipes that hold them, and the windows of a text."""

import json
from types import SimpleNamespace

import pytest
from paths import ROOT

from cadenza.quantization.stored.formats import FORMATS
from cadenza.recipe import RecipeError, load_settings
from cadenza.studies.checks import StudyError
from cadenza.studies.ptq_sweep import texts
from cadenza.studies.ptq_sweep.__main__ import main
from cadenza.studies.ptq_sweep.settings import Sweep


def test_the_defaults_have_all_formats():
    assert Sweep(models=["m"]).formats == ["none", *FORMATS]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["none", "nf5"]}, "'nf5'; it must be none, nf4"),
        ({"formats": ["nf4"]}, "formats must name none, with which the others are compared"),
        ({"models": []}, "models is empty; it must name one at least"),
        ({"seeds": []}, "seeds is empty"),
        ({"temperatures": [0.0]}, "temperatures"),
        ({"seeds": [1, 1]}, "seeds is .*; each must be there once"),
        ({"prompt": 512}, "prompt is 512; it must be shorter than window, 512"),
        ({"prompts": 17}, "prompts is 17; it must be at most windows, 16"),
        ({"device_map": "cuda:1"}, "device_map is 'cuda:1'; it must be auto"),
        ({"prompt": 511, "prompts": 16, "batch_sizes": []}, None),
    ],
)
def test_settings_are_checked(options, message):
    given = {"models": ["m"], **options}
    if message is None:
        Sweep(**given)
    else:
        with pytest.raises(ValueError, match=message):
            Sweep(**given)


def test_models_are_called_by_the_ends_of_their_names():
    assert Sweep(models=["a/one", "b/two"]).labels() == {"a/one": "one", "b/two": "two"}
    assert Sweep(models=["a/one", "b/one"]).labels() == {"a/one": "a/one", "b/one": "b/one"}


def test_recipes_are_settings():
    names = "ptq_sweep.yaml", "scale/cpu_ptq.yaml", "qlora.yaml"
    sweep, small, recipe = (str(ROOT / "yamls" / name) for name in names)
    assert load_settings(Sweep, [sweep], []).models[0] == "meta-llama/Llama-2-7b-hf"
    assert load_settings(Sweep, [sweep, small], []).models == ["HuggingFaceTB/SmolLM2-135M"]
    with pytest.raises(RecipeError, match=r"qlora\.yaml: unknown key"):
        load_settings(Sweep, [recipe], [])


def test_the_command_says_what_is_wrong(capsys):
    assert main(["models=[m]", "temprature=3"]) == 2
    assert "unknown key temprature; did you mean 'temperatures'?" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "python -m cadenza.studies.ptq_sweep yamls/ptq_sweep.yaml" in capsys.readouterr().out


class Letters:
    """A tokenizer of letters; BOS is 0."""

    bos_token_id, eos_token_id = 0, 1

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Windows of 4 tokens of a text in documents."""
    monkeypatch.setattr(texts, "anchor_id", lambda tokenizer: tokenizer.bos_token_id)

    def windows(number, *documents):
        path = tmp_path / "text.jsonl"
        path.write_text("".join(json.dumps({"text": each}) + "\n" for each in documents))
        cfg = SimpleNamespace(windows=number, window=4)
        found = texts.windows(cfg, str(path), Letters()).tolist()
        assert {row[0] for row in found} == {0}
        return ["".join(map(chr, row[1:])) for row in found]

    return windows


def test_windows_are_spread_over_the_text(cut):
    letters = "abcdefghijklmnopqrst"
    assert cut(2, letters) == ["abc", "jkl"], "of six pieces the first and the fourth"
    assert cut(6, letters) == ["abc", "def", "ghi", "jkl", "mno", "pqr"]
    with pytest.raises(StudyError, match=r"texts: .* holds 6 windows of 4 tokens, not 7"):
        cut(7, letters)


def test_documents_follow_one_another_as_far_as_four_times_what_is_taken(cut):
    """More than 4 * 1 * 3 tokens: the third document of five is the last that is read."""
    assert cut(1, *["abcde"] * 5) == ["abc"]
    assert cut(2, *["abcdefghijklm"] * 5) == ["abc", "mab"], "26 tokens, 8 pieces"
