"""What each process of the tests of calibration under DDP and on uneven ranks runs."""

import copy

import torch
import torch.distributed as dist
from ddp_worker import WORLD, join
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cadenza.algorithms import apply_quantization_aware_training, set_activation_bounds
from cadenza.quantization.training.averages import weight
from cadenza.quantization.training.calibration import calibrating
from cadenza.quantization.training.ranks import average_over_ranks
from cadenza.surgery import SurgeryError


class Whole(nn.Module):
    """A model around the one that is operated on."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.norm = inner, nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.inner(x))


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    apply_quantization_aware_training(model, granularity="per_tensor")
    return model


def worker(rank, meeting, jobs, failures):
    join(rank, meeting)
    for name in jobs:
        failures += [(rank, name, failure) for failure in globals()[name](rank)]
    dist.destroy_process_group()


def batch_by_batch(rank, around=lambda model: model):
    """Ranks that average after each batch end with the mean of what each would measure alone."""
    model = network()
    alone = [copy.deepcopy(model) for _ in range(WORLD)]
    wrapped = DistributedDataParallel(around(model))
    for _ in range(3):
        batches = torch.randn(WORLD, 5, 4)
        batches[0] *= 100
        wrapped(batches[rank]).sum().backward()
        average_over_ranks(list(calibrating(model).values()))
        for each, x in zip(alone, batches, strict=True):
            each(x)
    set_activation_bounds(wrapped)
    return differences(model, alone)


def inner_model(rank):
    """The same where DDP wraps more than was operated on: it would copy the averages of rank 0."""
    return batch_by_batch(rank, Whole)


def at_the_end(rank, around=Whole):
    """The same with one average, at the end, for which no rank's averages may have been overwritten."""
    model = network()
    alone, wrapped = [copy.deepcopy(model) for _ in range(WORLD)], DistributedDataParallel(around(model))
    for _ in range(3):
        batches = torch.randn(WORLD, 5, 4)
        batches[0] *= 100
        wrapped(batches[rank]).sum().backward()
        for each, x in zip(alone, batches, strict=True):
            each(x)
    set_activation_bounds(model)
    return differences(model, alone)


def differences(model, alone):
    apart = torch.stack([each[0].averages for each in alone])
    if not torch.allclose(model[0].averages, apart.mean(0), rtol=1e-6):
        yield f"{model[0].averages} is not the mean of {apart}"
    if torch.allclose(apart[0], apart[1], rtol=1e-3):
        yield "both ranks see the same: the comparison can't fail"
    if model[0].calibrating:
        yield "still calibrating"


def uneven_batches(rank):
    """Ranks count by their batches: 1 of threes on one rank, 30 of ones on the other."""
    model = network()
    for _ in range(30 if rank else 1):
        model(torch.ones(2, 4) * (1 if rank else 3))
    set_activation_bounds(model)
    shares = 0.1, 1 - 0.9**30
    expected = (3 * shares[0] + shares[1]) / sum(shares)
    found = float(model[0].averages[0] / weight(model[0]))
    if abs(found - expected) > 1e-6 * expected:
        yield f"bound {found}, not {expected}"


def uneven_layers(rank):
    """Each rank calls another layer: both get bounds, on both ranks."""
    model = nn.Sequential(network(), network())
    model[rank](torch.ones(2, 4) * (1 + rank))
    if set_activation_bounds(model) != 2:
        yield "not both have bounds"
    found = [float(each[0].averages[0] / weight(each[0])) for each in model]
    if any(abs(bound - expected) > 1e-6 for bound, expected in zip(found, (1, 2), strict=True)):
        yield f"bounds {found}, not 1 and 2"


def uneven_states(rank):
    """One rank loaded a state in which calibration has ended: an error on each."""
    model = network()
    model(torch.ones(2, 4))
    if rank == 0:
        model[0].set_bound()
    try:
        set_activation_bounds(model)
        yield "no error"
    except SurgeryError as error:
        if "0 calibrates on ranks [1] alone; load the same state on each rank" not in str(error):
            yield str(error)
