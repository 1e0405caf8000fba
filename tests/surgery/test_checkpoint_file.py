"""Checkpoint files: what is read, what is refused, and in which words."""

import pytest
import torch
from torch.torch_version import TorchVersion

from cadenza.surgery import CheckpointError
from cadenza.surgery.checkpoint import is_plain_call, read, safe_weights, saved_algorithms


class Foreign:
    """What another program may put into a checkpoint."""


def saved(content, path):
    torch.save(content, path)
    return path


def test_the_state_is_read_where_it_lies(tmp_path, monkeypatch):
    path = saved({"state": {"model": {"a": torch.ones(2)}, "run_name": "x"}, "rng": 1}, tmp_path / "a.pt")
    asked, load = {}, torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **options: asked.update(options) or load(*a, **options))
    state = read(str(path), trusted=True)
    assert state.keys() == {"model", "run_name"}
    assert torch.equal(state["model"]["a"], torch.ones(2))
    assert asked == {"map_location": "cpu", "mmap": True, "weights_only": True}


def refusal(path):
    with pytest.raises(CheckpointError) as raised:
        read(path, trusted=True)
    said = str(raised.value)
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_a_missing_file_names_the_last_of_its_neighbours(tmp_path):
    assert refusal(tmp_path / "nowhere/a.pt") == "there is no such checkpoint"
    assert refusal(tmp_path / "a.pt") == "there is no such checkpoint"
    for name in ("b4.pt", "b2.pt", "b1.pt", "b3.pt", "b5.txt"):
        (tmp_path / name).touch()
    there = ", ".join(str(tmp_path / name) for name in ("b2.pt", "b3.pt", "b4.pt"))
    assert refusal(tmp_path / "a.pt") == f"there is no such checkpoint; there are {there}"
    assert refusal(tmp_path).startswith("there is no such checkpoint")


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "text.pt").write_text("text")
    assert refusal(tmp_path / "text.pt").startswith("not a whole checkpoint; it was cut off")
    for content in ([1], {"model": {}}, {"state": [1]}, {"state": {"weights": {}}}):
        said = refusal(saved(content, tmp_path / "other.pt"))
        assert said == "not a Composer checkpoint: it has no state.model"


def test_foreign_classes_are_named_without_advice(tmp_path):
    said = refusal(saved({"state": {"model": {}, "x": Foreign()}}, tmp_path / "a.pt"))
    assert said.startswith("can't be read (Unsupported global: GLOBAL")
    assert "Foreign" in said
    assert "Please" not in said


@pytest.mark.parametrize("error", [RuntimeError, EOFError])
def test_other_errors_of_torch_are_cut_short(error, tmp_path, monkeypatch):
    path = saved({"state": {"model": {}}}, tmp_path / "a.pt")

    def fails(*args, **options):
        raise error("bad \n " * 60)

    monkeypatch.setattr(torch, "load", fails)
    assert refusal(path) == f"can't be read ({('bad ' * 60)[:200]})"


def test_reading_asks_whether_it_is_safe(tmp_path, monkeypatch):
    path = saved({"state": {"model": {}}}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(
        CheckpointError, match=r"2\.9\.1 can be made to run code .*install torch 2\.10 or later"
    ):
        read(path)
    assert read(path, trusted=True) == {"model": {}}
    assert safe_weights() == {"use_safetensors": True}
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.10.0"))
    assert read(path) == {"model": {}}
    assert safe_weights() == {}


def test_algorithms_of_a_state():
    pairs = [("GLU", {"repr": "GLU()"}), ("Other", {}), ("ALiBi", {"repr": "ALiBi()"})]
    for listed in (pairs, dict(pairs)):
        assert saved_algorithms({"algorithms": listed}) == {"GLU": "GLU()", "ALiBi": "ALiBi()"}
    assert saved_algorithms({}) == saved_algorithms({"algorithms": None}) == {}
    with pytest.raises(
        CheckpointError, match=r"algorithm GLU of the checkpoint is code, not options: \"GLU\(f"
    ):
        saved_algorithms({"algorithms": [("GLU", {"repr": "GLU(f'')"})]})


def test_names_with_an_underscore_are_private():
    assert not is_plain_call("glu._redraw(1)")
    assert is_plain_call("glu.redraw(1)")
    assert is_plain_call("GLU(_private=-1)")
