"""Tests on a CPU and, where there is one, on a CUDA device."""

import pytest
import torch

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
on_devices = pytest.mark.parametrize("device", ["cpu", CUDA])
# With a GPU, other tests leave a process group of NCCL behind, through which no CPU can train.
ALONE = pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="trains on the GPU"))
trained_on = pytest.mark.parametrize("device", [ALONE, CUDA])


def off(ours, theirs):
    """The norm of the difference, relative to that of the float64 reference."""
    theirs = theirs.detach()
    return float((ours.detach().cpu().double() - theirs).norm() / theirs.norm())
