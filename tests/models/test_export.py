"""From a Composer checkpoint to a folder: the same model, with its tokenizer and what it was trained on."""

import pytest
import torch
from cases import CASES, PAIRS, TOGETHER
from composer.algorithms import GradientClipping
from effects import logits
from families import batch, build
from saved import operated, same
from trainers import short_trainer

from cadenza.models import ModelError, export, load
from cadenza.surgery import CheckpointError, history, in_order

pytestmark = pytest.mark.slow

FAMILIES = ("bert", "roberta", "llama")
EACH = [(family, [name]) for name, family in PAIRS if family in FAMILIES]
ALL = [chosen for chosen in TOGETHER if chosen[0] in FAMILIES]


def checkpoint(family, names, folder, **kwargs):
    """A Trainer with techniques on a model, and its checkpoint."""
    model = build(family, seed=3)
    made = short_trainer(model, in_order(CASES[name].algorithm() for name in names), family, **kwargs)
    made.save_checkpoint(str(folder / "some.pt"))
    return model.eval(), folder / "some.pt"


@pytest.mark.slow
@pytest.mark.parametrize(("family", "names"), [*EACH, *ALL])
def test_what_is_exported_loads_as_it_was(family, names, tmp_path):
    model, path = checkpoint(family, names, tmp_path)
    loaded = load(export(path, tmp_path / "folder"))
    same(model, loaded)
    assert torch.equal(logits(model, family), logits(loaded, family))


def test_a_stock_model_is_exported_too(tmp_path):
    model, path = checkpoint("bert", [], tmp_path)
    folder = export(path, tmp_path / "folder")
    loaded = type(model).from_pretrained(folder)
    assert torch.equal(logits(model, "bert"), logits(loaded, "bert"))


def test_the_card_says_what_it_was_trained_on(tmp_path):
    model = build("bert")
    trained = short_trainer(model, [CASES["glu"].algorithm()])
    trained.fit()
    trained.save_checkpoint(str(tmp_path / "some.pt"))
    card = (export(tmp_path / "some.pt", tmp_path / "folder") / "README.md").read_text()
    tokens = sum(batch("bert", seed=seed)["input_ids"].numel() for seed in range(3))
    assert "- batches trained on: 3\n" in card
    assert f"- tokens trained on: {tokens}\n" in card


def test_what_cannot_be_exported_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        export(tmp_path / "some.pt", tmp_path / "folder")
    _, path = checkpoint("bert", ["glu"], tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no such checkpoint; there are .*some.pt"):
        export(tmp_path / "other.pt", tmp_path / "folder")
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a whole checkpoint; it was cut off"):
        export(tmp_path / "cut.pt", tmp_path / "folder")
    torch.save({"weights": torch.ones(2)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"not a Composer checkpoint: it has no state.model"):
        export(tmp_path / "foreign.pt", tmp_path / "folder")
    with pytest.raises(ModelError, match="isn't empty"):
        export(path, tmp_path)
    content = torch.load(path, weights_only=False)
    for bare in ({}, None, {"huggingface": {}}, {"huggingface": {"model": {}}}):
        content["state"]["integrations"] = bare
        torch.save(content, tmp_path / "bare.pt")
        with pytest.raises(CheckpointError, match=r"bare\.pt: there is no Hugging Face model in it"):
            export(tmp_path / "bare.pt", tmp_path / "folder")


def test_a_whole_model_has_nothing_to_merge(tmp_path):
    _, path = checkpoint("bert", [], tmp_path)
    with pytest.raises(CheckpointError, match=r"it has no adapters to merge; export it without --merge"):
        export(path, tmp_path / "folder", merge=True)
    assert not (tmp_path / "folder").exists()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A checkpoint of BERT after `glu`, with an algorithm of Composer's that is no surgery."""
    folder = tmp_path_factory.mktemp("plain")
    made = short_trainer(build("bert", seed=3), [CASES["glu"].algorithm(), GradientClipping("norm", 1.0)])
    made.save_checkpoint(str(folder / "some.pt"))
    return folder / "some.pt"


def test_other_algorithms_are_no_surgeries(plain, tmp_path):
    assert "GradientClipping" in str(torch.load(plain, weights_only=False)["state"]["algorithms"])
    assert list(history(load(export(plain, tmp_path / "folder")))) == list(history(operated("bert", ["glu"])))


def test_a_folder_must_be_empty_or_not_there(plain, tmp_path):
    (tmp_path / "empty").mkdir()
    assert export(plain, str(tmp_path / "empty")) == tmp_path / "empty"
    assert (tmp_path / "empty/model.safetensors").is_file()
    (tmp_path / "file").write_text("")
    for taken in ("empty", "file"):
        with pytest.raises(
            ModelError, match=f"export: .*{taken} isn't empty; name another folder, or remove it"
        ):
            export(plain, tmp_path / taken)


def test_weights_must_be_those_of_the_model(plain, tmp_path):
    content = torch.load(plain, weights_only=False)
    weights = content["state"]["model"]
    name = next(key for key in weights if key.endswith("query.weight"))
    for change in ({name: None}, {"model.more": torch.ones(1)}, {name: torch.ones(3)}):
        changed = {**weights, **change}
        content["state"]["model"] = {key: tensor for key, tensor in changed.items() if tensor is not None}
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"other\.pt: its weights don't fit its model: "):
            export(tmp_path / "other.pt", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


class Foreign:
    """What another program may put into a checkpoint."""


def test_a_checkpoint_is_read_without_running_it(tmp_path):
    _, path = checkpoint("bert", ["glu"], tmp_path)
    content = torch.load(path, weights_only=False)
    content["state"]["callbacks"] = Foreign()
    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"can't be read \(Unsupported global: GLOBAL .*Foreign"):
        export(tmp_path / "foreign.pt", tmp_path / "folder")
