"""`train.precision` on a CPU: what `auto` means, what it says, what all ranks and a resume agree on."""

import warnings

import pytest
import torch
from composer.utils import dist

from cadenza.recipe import RecipeError
from cadenza.recipe.cpu import precision

MEASURED = precision.speed  # tests/conftest.py puts a number in its place


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def fast(monkeypatch):
    """Makes bfloat16 products so many times as fast; lists the times that they are timed."""
    timed = []

    def fast(ratio):
        monkeypatch.setattr(precision, "speed", lambda: timed.append(ratio) or ratio)
        return timed

    return fast


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.9, "precision: amp_bf16 (auto: bfloat16 products are 1.9x as fast as float32 here)\n"),
        (1.3, "precision: amp_bf16 (auto: bfloat16 products are 1.3x as fast as float32 here)\n"),
        (
            1.29,
            "precision: fp32 (auto: bfloat16 products are 1.29x as fast as float32 here; "
            "amp_bf16 takes 1.3x)\n",
        ),
        (
            0.04,
            "precision: fp32 (auto: bfloat16 products are 0.04x as fast as float32 here; "
            "amp_bf16 takes 1.3x)\n",
        ),
    ],
)
def test_auto_takes_what_is_faster_and_says_why(ratio, said, fast, capsys):
    fast(ratio)
    assert precision.choose("auto") == said.split()[1]
    assert capsys.readouterr().out == said


def test_on_cuda_nothing_is_timed(fast, monkeypatch, capsys):
    timed = fast(0.5)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [precision.choose(asked) for asked in ("auto", "amp_bf16", "amp_fp16", "fp32")] == [
        "amp_bf16",
        "amp_bf16",
        "amp_fp16",
        "fp32",
    ]
    assert capsys.readouterr().out == "precision: amp_bf16 (auto, on a CUDA device)\n"
    assert timed == []


def test_fp32_is_neither_timed_nor_mentioned(fast, capsys):
    timed = fast(9.0)
    assert precision.choose("fp32") == "fp32"
    assert (timed, capsys.readouterr().out) == ([], "")


def test_amp_bf16_is_obeyed_and_called_slow_where_it_is(fast, capsys):
    fast(0.5)
    message = "train.precision: amp_bf16 is slow on this CPU: bfloat16 products are 0.5x as fast as float32"
    with pytest.warns(UserWarning, match=message):
        assert precision.choose("amp_bf16") == "amp_bf16"
    fast(2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert precision.choose("amp_bf16") == "amp_bf16"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("asked", ["amp_fp16", "amp_fp8", "bf16"])
def test_others_are_refused_on_a_cpu(asked):
    message = f"train.precision: {asked} can't run on a CPU; use amp_bf16, fp32 or auto"
    with pytest.raises(RecipeError, match=message):
        precision.check(asked, cuda=False)
    precision.check(asked, cuda=True)


@pytest.mark.parametrize("asked", ["auto", "fp32", "amp_bf16"])
def test_these_run_anywhere(asked):
    for cuda in (False, True):
        precision.check(asked, cuda)


def test_the_first_rank_decides_for_all(fast, monkeypatch, capsys):
    """The second rank finds bfloat16 slow, and the same line is not printed twice."""
    sent = []
    fast(2.0)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda objects: sent.append(list(objects)))
    assert precision.choose("auto") == "amp_bf16"
    timed = fast(0.5)
    monkeypatch.setattr(dist, "get_global_rank", lambda: 1)
    monkeypatch.setattr(dist, "broadcast_object_list", lambda objects: objects.__setitem__(0, sent[0][0]))
    assert precision.choose("auto") == "amp_bf16"
    assert timed == [2.0], "the second rank times nothing"
    assert capsys.readouterr().out.count("precision: ") == 1


def saved(path, kept):
    torch.save({"state": {"model": {}, "metadata": {"precision": kept}}}, path)
    return path


@pytest.mark.parametrize("kept", ["amp_bf16", "fp32"])
def test_a_resume_keeps_the_precision(kept, fast, tmp_path, capsys):
    timed = fast(1.0 if kept == "amp_bf16" else 2.0)
    path = saved(tmp_path / "a.pt", kept)
    assert precision.choose("auto", path) == kept
    assert capsys.readouterr().out == f"precision: {kept} (auto: the checkpoint's)\n"
    assert timed == []
    assert precision.choose("fp32", path) == "fp32", "what the recipe says comes first"


@pytest.mark.parametrize("path", ["s3://a/b.pt", "amp_fp16"])
def test_a_checkpoint_that_says_nothing_for_cpus_leaves_the_choice(path, fast, tmp_path):
    fast(2.0)
    found = path if "://" in path else saved(tmp_path / "a.pt", path)
    assert precision.choose("auto", found) == "amp_bf16"


class Clock:
    """CPU seconds of products: a float32 one takes `ratio`, a bfloat16 one 1, times the machine's load."""

    def __init__(self, ratio):
        self.now, self.count, self.ratio = 0.0, 0, ratio

    def mm(self, left, right):
        assert left.dtype == right.dtype
        self.count += 1
        load = 1.0 + 3.0 * (self.count // 20 % 2)
        self.now += load * (self.ratio if left.dtype == torch.float32 else 1.0)


@pytest.mark.parametrize("ratio", [0.25, 1.25, 2.0])
def test_the_ratio_is_that_of_neighbours(ratio, monkeypatch):
    """So it is the same however the load changes from one pair of runs to the next."""
    clock = Clock(ratio)
    monkeypatch.setattr(torch, "mm", clock.mm)
    monkeypatch.setattr(precision.time, "process_time", lambda: clock.now)
    assert MEASURED() == pytest.approx(ratio, rel=0.01)


def test_a_real_machine_has_a_ratio():
    assert MEASURED() > 0
