"""Files and names from elsewhere: none runs code, and none leads out of its folder."""

import json

import pytest
import torch
from families import build
from torch.torch_version import TorchVersion
from trainers import short_trainer

from cadenza.algorithms import GLU
from cadenza.models import ModelError, export, load, load_mosaicbert, masked_lm, save
from cadenza.recipe import RecipeError, checkpoints, run
from cadenza.recipe import load as load_recipe
from cadenza.surgery import CheckpointError
from cadenza.surgery.checkpoint import is_plain_call, read, unsafe_pickles

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 16, eval_fraction: 0.2}
train: {max_duration: 1ba, global_batch_size: 8, progress_bar: false}
"""


@pytest.fixture
def old_torch(monkeypatch):
    """The last torch that a file can make run code."""
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))


@pytest.fixture
def new_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A Composer checkpoint of BERT after `glu`."""
    path = tmp_path_factory.mktemp("checkpoint") / "some.pt"
    short_trainer(build("bert"), [GLU()]).save_checkpoint(str(path))
    return path


def changed(checkpoint, path, change):
    """A copy of `checkpoint` at `path`, whose state went through `change`."""
    content = torch.load(checkpoint, weights_only=False)
    change(content["state"])
    torch.save(content, path)
    return path


def test_the_boundary_is_torch_2_10(monkeypatch):
    for version, safe in {"2.7.0+cu126": 0, "2.9.1": 0, "2.10.0": 1, "2.15.0+cpu": 1, "3.0.0": 1}.items():
        monkeypatch.setattr(torch, "__version__", TorchVersion(version))
        assert (unsafe_pickles() is None) is bool(safe), version
    monkeypatch.undo()
    older = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10)
    assert (unsafe_pickles() is not None) is older, "of the torch that is installed"


def test_a_run_loads_no_file_of_another_on_old_torch(old_torch, checkpoint, text, tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    pairs = [f"data.source={text}", f"train.run_folder={tmp_path / 'runs'}", f"train.load_path={checkpoint}"]

    def played(*more):
        return run.train(load_recipe([str(tmp_path / "tiny.yaml")], [*pairs, *more]))

    def opened(*args, **kwargs):
        raise AssertionError("the file was opened")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", opened)
        with pytest.raises(
            RecipeError, match=r"not in the run's own folder .*runs/tiny, and torch 2\.9\.1 can"
        ):
            played()
    with pytest.raises(RecipeError, match="has no tokenizer"):  # by now it is read
        played("train.trust_load_path=true", "algorithms.glu=")


def test_the_own_folder_is_where_links_lead(old_torch, checkpoint, tmp_path):
    own, other = tmp_path / "runs/own", tmp_path / "runs/own-too"
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "a.pt").write_bytes(b"")
    (own / "link.pt").symlink_to(other / "a.pt")
    checkpoints.refuse_foreign(own / "a.pt", own)
    checkpoints.refuse_foreign(other / "../own/a.pt", own)
    for path in (other / "a.pt", own / "../own-too/a.pt", own / "link.pt", checkpoint):
        with pytest.raises(RecipeError, match="if you made it yourself"):
            checkpoints.refuse_foreign(path, own)


def test_on_new_torch_local_files_are_read_as_data_and_remote_ones_not_at_all(
    new_torch, checkpoint, tmp_path
):
    checkpoints.refuse_foreign(checkpoint, tmp_path)
    with pytest.raises(RecipeError, match="would be downloaded and unpickled unchecked"):
        checkpoints.refuse_foreign("s3://bucket/a.pt", tmp_path)


def test_export_reads_what_is_trusted(old_torch, checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"CVE-2026-24747.*or pass trusted=True \(--trust\)"):
        export(checkpoint, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert (export(checkpoint, tmp_path / "folder", trusted=True) / "model.safetensors").is_file()


def test_weights_from_elsewhere_are_safetensors_on_old_torch(old_torch, tmp_path, monkeypatch):
    model = build("bert")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no other format is read here: torch 2\.9\.1 can"):
        masked_lm(pretrained=str(tmp_path))
    with pytest.raises(ModelError, match=r"pytorch_model.bin: torch 2\.9\.1 can .*or pass trusted=True"):
        load_mosaicbert(tmp_path)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
    loaded = masked_lm(pretrained=str(tmp_path)).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


def test_a_folder_of_ours_is_read_from_safetensors_alone(old_torch, tmp_path):
    model = build("bert")
    GLU().operate(model)
    folder = save(model, tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no other format is read here: torch 2\.9\.1 can"):
        load(folder)


OUTSIDE = [
    "../../escaped.json",
    "/tmp/absolute.txt",
    "a/b.json",
    "..",
    ".hidden.json",
    "back\\slash.json",
    "",
]
OVERWRITES = ["config.json", "model.safetensors", "README.md", "generation_config.json", "cadenza_remote.py"]


@pytest.mark.parametrize("name", [*OUTSIDE, *OVERWRITES, "tokenizer.py", "new\nline.json"])
def test_export_writes_a_tokenizers_files_alone(name, checkpoint, tmp_path):
    """Names in a checkpoint are joined to a folder: `shared/cases/core/case_3`."""

    def evil(state):
        state["integrations"]["huggingface"]["tokenizer"] = {
            "tokenizer.json": {"file_extension": ".json", "content": {}},
            name: {"file_extension": "", "content": "print('escaped')"},
        }

    path = changed(checkpoint, tmp_path / "evil.pt", evil)
    with pytest.raises(CheckpointError, match="is not the name of a tokenizer file"):
        export(path, tmp_path / "a/b/out", trusted=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["evil.pt"], "nothing was written"


def test_a_tokenizers_files_come_out_as_they_went_in(checkpoint, tmp_path):
    def tokenizer(state):
        state["integrations"]["huggingface"]["tokenizer"] = {
            "tokenizer.json": {"file_extension": ".json", "content": {"a": [1, "é"]}},
            "list.json": {"file_extension": ".json", "content": ["a", "b"]},
            "vocab.txt": {"file_extension": ".txt", "content": ["[PAD]", "é", ""]},
            "spiece.model": {"file_extension": ".model", "content": b"\0\xff"},
            "chat_template.jinja": {"file_extension": ".jinja", "content": "{{ x }}"},
            "tokenizer_config": {"file_extension": ".json", "content": {}},  # as Composer once wrote it
        }

    folder = export(changed(checkpoint, tmp_path / "some.pt", tokenizer), tmp_path / "out", trusted=True)
    text = (folder / "tokenizer.json").read_text()
    assert json.loads(text) == {"a": [1, "é"]}
    assert text.startswith('{\n  "a": ['), "as tokenizers writes it"
    assert json.loads((folder / "list.json").read_text()) == ["a", "b"]
    assert (folder / "vocab.txt").read_text(encoding="utf-8") == "[PAD]\né\n"
    assert (folder / "spiece.model").read_bytes() == b"\0\xff"
    assert (folder / "chat_template.jinja").read_text() == "{{ x }}"
    assert (folder / "tokenizer_config.json").read_text() == "{}"


CODE = [
    "GLU() if open('{}', 'w') else 0",
    "GLU(variant=open('{}', 'w'))",
    "__doc__ or open('{}', 'w')",
    "GLU(*[open('{}', 'w')])",
    "GLU(variant=(lambda: 0)())",
    "GLU(variant=[0 for _ in 'a'])",
    "GLU.__init__.__globals__",
    "GLU(variant=f'{{1}}')",
    "torch.os.system('true')(1)",
]
PLAIN = [
    "GLU(variant='geglu', intermediate_size=None)",
    "VocabPadding(multiple=-64)",
    "GradientClipping(clipping_type='norm',clipping_threshold=1.0)",
    "LowPrecisionLayerNorm(apply_at=Event.AFTER_LOAD)",
    "PostTrainingQuantization(format='nf4', except_=['*.layers.0.*'], only=('a', {'b': True}))",
    "<composer.algorithms.Foreign object at 0x7f>",
    "not a call (",
]


def test_options_are_values_and_not_code():
    assert [text for text in PLAIN if not is_plain_call(text)] == []
    assert [text for text in CODE if is_plain_call(text)] == []


@pytest.mark.parametrize("weights_only", [True, False])
def test_a_trainer_does_not_run_what_stands_for_an_algorithm(weights_only, checkpoint, tmp_path):
    """Composer evaluates the reprs of a checkpoint's algorithms."""
    mark = tmp_path / "mark"

    def evil(state):
        state["algorithms"] = [("GLU", {"repr": CODE[0].format(mark)})]

    path = changed(checkpoint, tmp_path / "evil.pt", evil)
    with pytest.raises(CheckpointError, match="algorithm GLU of the checkpoint is code, not options"):
        short_trainer(build("bert"), [GLU()], load_path=str(path), load_weights_only=weights_only)
    with pytest.raises(CheckpointError, match="algorithm GLU of the checkpoint is code, not options"):
        export(path, tmp_path / "folder", trusted=True)
    assert not mark.exists()
    assert "GLU" in dict(read(checkpoint, trusted=True)["algorithms"])


def test_a_class_that_is_no_model_is_not_made(tmp_path):
    model = build("bert")
    GLU().operate(model)
    folder = save(model, tmp_path / "saved")
    fields = json.loads((folder / "config.json").read_text())
    for name in ("pipeline", "TrainingArguments", "BertConfig", "NoSuch"):
        (folder / "config.json").write_text(json.dumps({**fields, "architectures": [name]}))
        with pytest.raises(ModelError, match=f"'{name}' is not a model of transformers"):
            load(folder)


@pytest.mark.parametrize(
    "name",
    ["../../x", ".", "..", "/abs", "~", "~x", "a/../b", "a/./b", "a//b", "a/", "{rank}", "a\\b", "a\n"],
)
def test_a_name_stays_in_the_run_folder(name, tmp_path):
    (tmp_path / "named.yaml").write_text("name: " + json.dumps(name))
    (tmp_path / "over.yaml").write_text("seed: 3")
    files = [str(tmp_path / file) for file in ("named.yaml", "over.yaml")]
    outside = r"name a folder within train\.run_folder"
    right = "hold printable characters alone" if name == "a\n" else outside
    with pytest.raises(RecipeError, match=rf"named\.yaml: name is .*; it must {right}"):
        load_recipe(files, [])


@pytest.mark.parametrize("name", ["run", "mosaicbert-base", "sweep 1/lr=1e-3,wd=0.1", "v1.2_a+b@c", "длина"])
def test_other_names_are_taken(name):
    assert load_recipe([], [f"name={name}"]).name == name
