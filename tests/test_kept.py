"""Folders and checkpoints that earlier versions wrote give the logits that they gave then."""

import warnings

import pytest
from families import build
from paths import ROOT
from safetensors.torch import load_file
from saved import KEPT, kept_logits
from trainers import short_trainer

from cadenza.algorithms import QuantizationAwareTraining
from cadenza.models import export, load
from cadenza.surgery import CheckpointError

FOLDERS = sorted(path.parent for path in (ROOT / "tests/kept").glob("*/*/checkpoint.pt"))
held = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")


def assert_same(model, folder):
    """Equal to rounding: kernels differ from one version of torch to the next."""
    expected, found = (
        load_file(folder / "logits.safetensors")["logits"],
        kept_logits(model.eval(), KEPT[folder.name][0]),
    )
    expected = expected[..., expected[0, 0] > -1000]  # up to 0.1 padded words had logits of -32752
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2e-6 * expected.abs().max()


def test_each_set_is_kept_in_less_than_a_megabyte():
    assert {path.name for path in FOLDERS} == set(KEPT)
    for version in {path.parent for path in FOLDERS}:
        assert sum(file.stat().st_size for file in version.rglob("*") if file.is_file()) < 1_000_000


@held
def test_a_saved_folder_loads(folder):
    assert_same(load(folder / "saved"), folder)


@held
def test_a_checkpoint_is_exported(folder, tmp_path):
    assert_same(load(export(folder / "checkpoint.pt", tmp_path / "folder", trusted=True)), folder)


@held
@pytest.mark.parametrize("listed", [True, False])
def test_a_checkpoint_is_resumed(folder, listed):
    family, sizes, algorithms = KEPT[folder.name]
    model = build(family, seed=12, **sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resumed = short_trainer(
            model, algorithms() if listed else [], family, load_path=str(folder / "checkpoint.pt")
        )
    assert resumed.state.timestamp.batch == 3
    assert_same(model, folder)


def test_an_option_that_a_checkpoint_is_too_old_for_had_its_default():
    (folder,) = (path for path in FOLDERS if path.name == "quantization_aware_training")
    family, sizes, algorithms = KEPT[folder.name]
    (listed,) = algorithms()
    other = QuantizationAwareTraining(**{**listed.options, "edge_gradient": "half"})
    with pytest.raises(CheckpointError, match="edge_gradient was 'full' and is 'half'"):
        short_trainer(build(family, **sizes), [other], family, load_path=str(folder / "checkpoint.pt"))
