"""The bytes of a model's tensors and the peak of a block, on a CPU and on a pretended GPU."""

import os
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cadenza.studies import memory

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="NOT VERIFIED HERE: needs Linux")


def test_bytes_of_weights():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 3), nn.BatchNorm1d(3, dtype=torch.float16))
    model.add_module("tied", nn.Linear(3, 5, bias=False))
    model.tied.weight = model[0].weight
    norm = 4 * 3 * 2 + 8  # weight, bias, two statistics, and a count of int64
    assert memory.weight_bytes(model) == 4 * (15 + 5 + 15 + 3) + norm


@pytest.mark.parametrize(("before", "expected"), [(100, 50), (0, 150), (-1, -1)])
def test_a_peak_is_what_comes_on_top(before, expected, monkeypatch):
    found, order = [], []
    monkeypatch.setattr(memory, "_reset_resident", lambda: order.append("before") or before)
    monkeypatch.setattr(memory, "_resident", lambda key: order.append(key) or 150)
    with memory.peak_bytes(torch.device("cpu"), found):
        order.append("block")
    assert found == [expected]
    assert order[:2] == ["before", "block"]
    assert order[2:] == ["VmHWM"][: before >= 0]


def test_a_peak_on_a_gpu(monkeypatch):
    order, found = [], []
    for name, value in (
        ("reset_peak_memory_stats", None),
        ("memory_allocated", 100),
        ("max_memory_allocated", 170),
    ):
        note = lambda device, name=name, value=value: order.append((name, device)) or value  # noqa: E731
        monkeypatch.setattr(torch.cuda, name, note)
    device = SimpleNamespace(type="cuda")
    with memory.peak_bytes(device, found):
        order.append("block")
    assert found == [70]
    reset, before, block, after = order
    assert [reset, before] == [("reset_peak_memory_stats", device), ("memory_allocated", device)]
    assert (block, after) == ("block", ("max_memory_allocated", device))


@LINUX
def test_resident_bytes():
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(memory._resident("VmRSS") - resident) < 0.05 * resident
    assert memory._resident("VmHWM") >= 0.95 * resident


@LINUX
def test_the_peak_of_a_block():
    found = []
    torch.ones(2**26)  # a quarter of a gigabyte, before
    with memory.peak_bytes(torch.device("cpu"), found):
        torch.ones(2**24)
    if found == [-1]:
        pytest.skip("NOT VERIFIED HERE: the high-water mark can't be reset")
    assert 0.9 * 2**26 < found[0] < 2 * 2**26


def test_where_nothing_can_be_reset_there_is_no_peak(monkeypatch):
    def refused(*_):
        raise OSError

    monkeypatch.setattr("builtins.open", refused)
    assert memory._reset_resident() == -1
