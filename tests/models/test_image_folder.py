"""ResNets of checkpoints in folders, with and without surgeries."""

import json

import pytest
import torch
from composer.utils import reproducibility
from torchvision.models import resnet50

from cadenza.algorithms import QuantizationAwareTraining, set_activation_bounds
from cadenza.models import ModelError, load_resnet, resnet
from cadenza.models.image_folder import is_resnet, network_in, write_resnet
from cadenza.surgery import CheckpointError


def state_of(model, *surgeries):
    """What a checkpoint of Composer holds of a classifier."""
    played = [(type(each).__name__, {"repr": repr(each)}) for each in surgeries]
    return {"model": model.state_dict(), "algorithms": played}


def images(channels=3):
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def run_folder(tmp_path, stem):
    (tmp_path / "checkpoints").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"model": {"stem": stem}}}))
    return tmp_path / "checkpoints" / "latest-rank0.pt"


@pytest.mark.parametrize("depth", ["resnet10", "resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["imagenet", "small", "small_stride2"])
def test_a_network_comes_back(depth, stem, tmp_path):
    reproducibility.seed_all(3)
    model = resnet(depth, 0.25, num_classes=7, channels=1, stem=stem)
    model.module.train()(images(1))  # fills the batch norms
    state = state_of(model)
    assert is_resnet(state)
    write_resnet(*network_in(state, run_folder(tmp_path / "run", stem)), tmp_path / "folder")
    loaded = load_resnet(tmp_path / "folder")
    assert not loaded.training
    assert torch.equal(loaded(images(1)), model.module.eval()(images(1)))


def test_a_network_in_few_bits_comes_back(tmp_path):
    model = resnet("resnet10", 0.25, num_classes=5, stem="small")
    surgery = QuantizationAwareTraining()
    surgery.operate(model)
    model.module.train()(images())
    set_activation_bounds(model)
    write_resnet(
        *network_in(state_of(model, surgery), run_folder(tmp_path / "run", "small")), tmp_path / "folder"
    )
    loaded = load_resnet(tmp_path / "folder")
    assert "4-bit weights" in repr(loaded)
    assert torch.equal(loaded(images()), model.module.eval()(images()))


def test_torchvision_reads_a_network_of_its_own_sizes(tmp_path):
    from safetensors.torch import load_file

    model = resnet("resnet50", num_classes=4)
    write_resnet(*network_in(state_of(model), tmp_path / "anywhere.pt"), tmp_path / "folder")
    theirs = resnet50(num_classes=4).eval()
    theirs.load_state_dict(load_file(tmp_path / "folder" / "model.safetensors"))
    assert torch.equal(theirs(images()), model.module.eval()(images()))


def test_what_cannot_be_known_or_read(tmp_path):
    model = resnet("resnet10", 0.25, num_classes=4, stem="small")
    with pytest.raises(CheckpointError, match="the stride of its stem isn't in the weights; keep"):
        write_resnet(*network_in(state_of(model), tmp_path / "alone.pt"), tmp_path / "folder")
    state = state_of(model)
    del state["model"]["module.layer4.0.conv1.weight"]
    with pytest.raises(CheckpointError, match="its weights don't fit its network"):
        write_resnet(*network_in(state, run_folder(tmp_path / "run", "small")), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(ModelError, match=r"config.json can't be read"):
        load_resnet(tmp_path / "nowhere")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match=r"is not of a ResNet; use cadenza.models.load"):
        load_resnet(tmp_path / "text")
