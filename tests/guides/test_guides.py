"""The guides: what they say to type is typed, in small."""

import re
import shlex

import pytest
from paths import ROOT

from cadenza.cli.main import main

BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.S)
SMALL = ["train.max_duration=2ba", "train.progress_bar=false", "train.eval_interval=1dur"]
MORE = {
    "encoder": [
        *("model.config.hidden_size=32", "model.config.num_hidden_layers=1", "data.eval_documents=20"),
        "model.config.intermediate_size=48",
    ],
    "context": ["data.eval_documents=8"],
    "continue_pretraining": [
        *("model.config.hidden_size=32", "model.config.num_hidden_layers=1", "data.eval_documents=5"),
        "model.config.intermediate_size=48",
    ],
    "finetune": [],
    "qlora": ["data.eval_documents=8"],
    "onnx": ["data.train_images=128", "data.eval_images=64", "train.max_duration=2ep"],
    "images": ["data.train_images=128", "data.eval_images=64", "train.max_duration=2ep"],
}
FILES = {
    "encoder": ["my-encoder/config.json"],
    "context": ["longer/config.json"],
    "continue_pretraining": ["further/config.json"],
    "finetune": ["runs/letters/model/config.json"],
    "qlora": ["adapter/adapter_config.json", "merged/config.json", "few-bits/config.json"],
    "images": ["network/config.json"],
    "onnx": ["digits.onnx", "encoder.onnx"],
}


def test_every_guide_is_here():
    assert {path.stem for path in (ROOT / "docs/guides").glob("*.md")} == FILES.keys()


def typed(guide, kind, text):
    """Do what a block says."""
    if kind == "python":
        exec(compile(text, f"{guide}.md", "exec"), {"__name__": "guide"})
    elif kind == "yaml":
        name, _, content = text.partition("\n")
        with open(name.lstrip("# "), "w") as file:
            file.write(content)
    else:
        assert kind == "bash"
        for line in text.splitlines():
            program, *words = shlex.split(line)
            assert program == "cadenza"
            small = [*SMALL, *MORE[guide]] if words[0] == "train" else []
            assert main([*words, *small]) == 0, line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("guide", FILES)
def test_a_guide_can_be_typed(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    for kind, text in BLOCK.findall((ROOT / "docs" / "guides" / f"{guide}.md").read_text()):
        typed(guide, kind, text)
    assert all((tmp_path / file).is_file() for file in FILES[guide])
    assert "error" not in capsys.readouterr().err
