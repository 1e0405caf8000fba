"""Freed memory is kept: page faults of large tensors, counted in a process of its own."""

import platform
import subprocess
import sys

import pytest
import torch

from cadenza.recipe import run
from cadenza.recipe.cpu import memory

COUNT = """
import resource, sys, torch
from cadenza.recipe.cpu.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(16):  # many: another allocation may once take a part of the freed pages
        torch.ones(64 * 2**20, dtype=torch.uint8)  # freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_tensor_takes_the_pages_of_the_one_before():
    def faults(mode):
        command = [sys.executable, "-c", COUNT, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") < faults("default") / 10


@pytest.mark.parametrize(("system", "libc"), [("Darwin", "glibc"), ("Linux", "musl"), ("Windows", "")])
def test_other_systems_are_left_alone(system, libc, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # a call would raise
    assert memory.keep_freed_memory() is False


@pytest.mark.parametrize(("cuda", "calls"), [(False, 1), (True, 0)])
def test_a_run_on_a_cpu_asks_for_it(cuda, calls, monkeypatch):
    class Ended(Exception):
        pass

    def end(recipe):
        raise Ended

    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(run, "trainer_settings", lambda recipe: {})
    monkeypatch.setattr(run, "keep_freed_memory", lambda: asked.append(1))
    monkeypatch.setattr(run, "task_of", end)
    with pytest.raises(Ended):
        run._train(None, {})
    assert len(asked) == calls
