"""Prediction on fixed text against plain computations in float64, and the file of log-probabilities."""

import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from families import build

from cadenza.studies.checks import StudyError
from cadenza.studies.ptq_sweep.measures import prediction, reference

IDS = torch.randint(3, 90, (3, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models():
    """A model, and what a quantization may have made of it."""
    plain = build("llama", initializer_range=0.5)
    other = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    return plain, other


def in_float64(model):
    """Log-probabilities (windows, 11, vocabulary), all windows at once."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(IDS).logits[:, :-1].log_softmax(-1)


def test_measures_equal_plain_formulas(models, tmp_path):
    plain, other = models
    reference.write(tmp_path / "r.npy", plain, IDS)
    found = prediction.on_text(other, IDS, reference.read(tmp_path / "r.npy"))
    p, q = in_float64(plain), in_float64(other)
    kl = (p.exp() * (p - q)).sum(-1)
    before, after = (x.gather(-1, IDS[:, 1:, None])[..., 0] for x in (p, q))
    expected = {
        "kl": kl.mean(1),
        "nll": -after.mean(1),
        "nll_reference": -before.mean(1),
        "change": (after.exp() - before.exp()).mean(1),
        "square_change": (after.exp() - before.exp()).square().mean(1),
        "same_top": (p.argmax(-1) == q.argmax(-1)).double().mean(1),
    }
    assert found.keys() == {*expected, "kl_percentiles"} == {*prediction.OF_WINDOWS, "kl_percentiles"}
    for name, values in expected.items():  # float32 keeps 7 digits of logits up to 10
        assert found[name] == pytest.approx(values.tolist(), rel=1e-4, abs=1e-6), name
    assert 0.1 < float(expected["same_top"].mean()) < 0.95, "the models differ, but not in all"
    ordered = sorted(kl.flatten().tolist())
    assert list(found["kl_percentiles"]) == ["1", "5", "50", "95", "99", "99.9", "100"]
    assert found["kl_percentiles"]["50"] == pytest.approx(ordered[16], rel=1e-4)
    assert found["kl_percentiles"]["100"] == pytest.approx(ordered[-1], rel=1e-4)


def test_kl_is_of_the_unquantized_model_s_share():
    """Of shares 3/4 and 1/4 against halves."""
    theirs, ours = torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.5, 0.5]]).log()
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    found = prediction.of_tokens(theirs, ours, torch.tensor([1]))
    assert found["kl"].item() == pytest.approx(expected, rel=1e-5)
    assert found["change"].item() == pytest.approx(0.25), "of the token in the text, ours minus theirs"


def test_a_model_is_no_distance_from_itself(models, tmp_path):
    reference.write(tmp_path / "r.npy", models[0], IDS)
    found = prediction.on_text(models[0], IDS, reference.read(tmp_path / "r.npy"))
    assert (found["kl"], found["change"], found["same_top"]) == ([0] * 3, [0] * 3, [1] * 3)
    assert found["nll"] == found["nll_reference"]


def test_the_file_is_as_large_as_it_says_and_appears_when_it_is_complete(models, tmp_path):
    path = tmp_path / "r.npy"
    reference.write(path, models[0], IDS)
    held = reference.read(path)
    assert (held.shape, held.dtype) == ((3, 11, 90), np.float32)
    assert held.nbytes == reference.bytes_needed(IDS, 90)
    assert torch.equal(torch.from_numpy(np.array(held[1])), reference.log_probabilities(models[0], IDS[1]))

    calls = iter([models[0]])

    def killed(ids):
        return next(calls)(ids)  # StopIteration at the second window

    killed.device = torch.device("cpu")
    with pytest.raises(StopIteration):
        reference.write(tmp_path / "other.npy", killed, IDS)
    assert not (tmp_path / "other.npy").exists()
    reference.write(tmp_path / "other.npy", models[0], IDS)
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_is_an_error_before_it_is_filled(models, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=reference.SPARE + 10))
    with pytest.raises(StudyError, match=r"out: .* GB for the unquantized model's log-probabilities"):
        reference.write(tmp_path / "r.npy", models[0], IDS)
    assert not list(tmp_path.iterdir())
