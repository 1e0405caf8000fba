"""The devices that a record names."""

import torch
from composer.utils import dist

from cadenza.recipe import record


def test_a_cuda_device_has_its_name(monkeypatch):
    """Eight of one kind take other hours than eight of another."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    assert record.devices("gpu") == {"kind": "gpu", "name": "NVIDIA A100-SXM4-80GB", "world_size": 8}


def test_a_cpu_has_none():
    assert record.devices("cpu") == {"kind": "cpu", "world_size": 1}
