"""From a Composer checkpoint to a folder: the same model, with its tokenizer and what it was trained on."""

import pytest
import torch
from cases import CASES, PAIRS, TOGETHER
from families import batch, build
from test_composer import trainer
from test_saving import logits, same

from cadenza.models import ModelError, export, load
from cadenza.surgery import CheckpointError, in_order

pytestmark = pytest.mark.slow

FAMILIES = ("bert", "roberta", "llama")
EACH = [(family, [name]) for name, family in PAIRS if family in FAMILIES]
ALL = [chosen for chosen in TOGETHER if chosen[0] in FAMILIES]


def checkpoint(family, names, folder, **kwargs):
    """A Trainer with techniques on a model, and its checkpoint."""
    model = build(family, seed=3)
    made = trainer(model, in_order(CASES[name].algorithm() for name in names), family, **kwargs)
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
    trained = trainer(model, [CASES["glu"].algorithm()])
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
    with pytest.raises(CheckpointError, match=r"no checkpoint of Composer: it holds no state.model"):
        export(tmp_path / "foreign.pt", tmp_path / "folder")
    with pytest.raises(ModelError, match="isn't empty"):
        export(path, tmp_path)
    content = torch.load(path, weights_only=False)
    content["state"]["integrations"] = {}
    torch.save(content, tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match="there is no Hugging Face model in it"):
        export(tmp_path / "bare.pt", tmp_path / "folder")


class Foreign:
    """What another program may put into a checkpoint."""


def test_a_checkpoint_is_read_without_running_it(tmp_path):
    _, path = checkpoint("bert", ["glu"], tmp_path)
    content = torch.load(path, weights_only=False)
    content["state"]["callbacks"] = Foreign()
    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"can't be read \(Unsupported global: GLOBAL .*Foreign"):
        export(tmp_path / "foreign.pt", tmp_path / "folder")
