"""A run that a signal ends: one line, the last checkpoint, the exit code."""

import os
import signal

import pytest
import torch

from cadenza.recipe.errors import Stopped
from cadenza.recipe.runs.stopping import stops_in_a_line


@pytest.fixture(autouse=True)
def usual_handlers(monkeypatch):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def stopped(folder, *signals):
    def told():
        try:
            os.kill(os.getpid(), signals[0])
        finally:
            for each in signals[1:]:
                os.kill(os.getpid(), each)

    with pytest.raises(Stopped) as stop, stops_in_a_line(folder):
        told()
    return stop.value


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_names_the_last_whole_checkpoint(number, code, tmp_path):
    torch.save({}, tmp_path / "ep0-ba4-rank0.pt")
    (tmp_path / "ep0-ba8-rank0.pt").write_bytes(b"cut off")
    found = stopped(tmp_path, number)
    good = tmp_path / "ep0-ba4-rank0.pt"
    assert str(found) == f"the last checkpoint is {good}; train.autoresume=true resumes from it"
    assert found.code == code


def test_a_launcher_sends_a_second_signal(tmp_path):
    found = stopped(tmp_path, signal.SIGINT, signal.SIGTERM)
    assert str(found) == "no checkpoint was saved; train.save_interval says when"
    assert found.code == 130
    os.kill(os.getpid(), signal.SIGTERM)  # while the process ends
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_put_back_and_ignored_signals_stay_ignored(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stops_in_a_line(tmp_path):
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_other_errors_pass(tmp_path):
    with pytest.raises(ValueError, match="other"), stops_in_a_line(tmp_path):
        raise ValueError("other")


def test_the_command_line_says_it_in_a_line(main, monkeypatch, capsys):
    def stopped(*args, **kwargs):
        raise Stopped("the last checkpoint is x", 143)

    monkeypatch.setattr("cadenza.recipe.load", stopped)
    assert main(["a.yaml"]) == 143
    assert capsys.readouterr().err == "stopped: the last checkpoint is x\n"


def test_a_signal_before_training_is_a_line_too(main, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("cadenza.recipe.load", interrupted)
    assert main(["a.yaml"]) == 130
    assert capsys.readouterr().err == "stopped\n"
