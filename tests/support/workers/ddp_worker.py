"""What each process of the DDP test runs; a module of its own, so that a spawned process can import it."""

import datetime

import torch
import torch.distributed as dist
from cases import CASES
from families import batch, build
from patience import PATIENCE
from torch.nn.parallel import DistributedDataParallel

WORLD = 2


def operated(family, names):
    model = build(family).double()  # exact enough to compare sums in another order
    for name in names:
        CASES[name].apply(model)
    return model


def loss_of(model, inputs):
    """A sum over samples, so that the mean over ranks is half the loss of the whole batch."""
    out = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    return out.logits[..., :90].square().mean(dim=(1, 2)).sum()


def join(rank, meeting):
    """Meet the other rank by the file `meeting`."""
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=PATIENCE)
    meet = {"init_method": f"file://{meeting}", "rank": rank, "world_size": WORLD}
    dist.init_process_group("gloo", timeout=timeout, **meet)


def in_turn(rank, meeting, workers, failures):
    """Several workers with their jobs in the same processes, whose start takes longer than most jobs."""
    for number, (work, jobs) in enumerate(workers):
        work(rank, f"{meeting}{number}", jobs, failures)


def worker(rank, meeting, jobs, failures):
    join(rank, meeting)
    for family, names in jobs:
        inputs = batch(family, rows=2 * WORLD)
        mine = {key: value[rank::WORLD] for key, value in inputs.items()}
        wrapped = DistributedDataParallel(operated(family, names))
        loss_of(wrapped, mine).backward()
        alone = operated(family, names)
        (loss_of(alone, inputs) / WORLD).backward()
        for (name, p), q in zip(wrapped.module.named_parameters(), alone.parameters(), strict=True):
            if (p.grad - q.grad).abs().max() > 1e-9 * max(1.0, q.grad.abs().max().item()):
                failures.append((rank, family, names, name))
    dist.destroy_process_group()
