"""What each process of the test of calibration under DDP runs."""

import copy

import torch
import torch.distributed as dist
from ddp_worker import WORLD, join
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.calibration import average_over_ranks, calibrating


def worker(rank, meeting, jobs, failures):
    join(rank, meeting)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    apply_quantization_aware_training(model)
    alone = [copy.deepcopy(model) for _ in range(WORLD)]
    wrapped = DistributedDataParallel(model)
    for _ in range(3):
        batches = torch.randn(WORLD, 5, 4)
        wrapped(batches[rank]).sum().backward()
        average_over_ranks(calibrating(wrapped))
        for each, x in zip(alone, batches, strict=True):
            each(x)
    set_activation_bounds(wrapped)
    apart = torch.stack([each[0].averages for each in alone])
    if not torch.allclose(model[0].averages, apart.mean(0), rtol=1e-6):
        failures.append((rank, "the averages aren't the means of each rank's"))
    if torch.allclose(apart[0], apart[1], rtol=1e-3):
        failures.append((rank, "both ranks see the same: the comparison can't fail"))
    if model[0].calibrating:
        failures.append((rank, "still calibrating"))
    dist.destroy_process_group()
