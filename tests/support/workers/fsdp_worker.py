"""What each process of the FSDP test runs; a module of its own, so that a spawned process can import it."""

import warnings

import torch
import torch.distributed as dist
from composer.algorithms.gradient_clipping import apply_gradient_clipping
from composer.distributed.prepare_distributed import parallelize_composer_model
from composer.utils.parallelism import FSDP2Config
from ddp_worker import WORLD, join, loss_of, operated
from families import batch

from cadenza.models import composer_model
from cadenza.recipe.parallelism import is_layer, mark_layers

STEPS = 3


def losses(model, inputs, shared=False, norm=None):
    """The loss of each step of training, over all ranks; `norm`: the gradient's largest."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    seen = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, inputs) if shared else loss_of(model, inputs) / WORLD
        loss.backward()
        if norm is not None:
            apply_gradient_clipping(model, "norm", norm, fsdp_enabled=False)  # as Composer does under FSDP2
        optimizer.step()
        total = loss.detach().clone()
        if shared:
            dist.all_reduce(total)
            total /= WORLD
        seen.append(total.item())
    return seen


def clipping_worker(rank, meeting, norms, failures):
    """Losses of clipped steps, of one process and of shards."""
    warnings.simplefilter("ignore")
    join(rank, meeting)
    inputs = batch("llama", rows=2 * WORLD)
    mine = {key: value[rank::WORLD] for key, value in inputs.items()}
    for norm in norms:
        alone = losses(operated("llama", []), inputs, norm=norm)
        wrapped = composer_model(operated("llama", []))
        mark_layers(wrapped)
        parallelize_composer_model(wrapped, None, FSDP2Config(mixed_precision="FULL"), "fp32")
        sharded = losses(wrapped.model, mine, shared=True, norm=norm)
        if not all(abs(a - b) < 1e-9 * abs(a) for a, b in zip(alone, sharded, strict=True)):
            failures.append((rank, norm, alone, sharded))
        if alone == losses(operated("llama", []), inputs):
            failures.append((rank, norm, "clips nothing"))
    dist.destroy_process_group()


def worker(rank, meeting, jobs, failures):
    warnings.simplefilter("ignore")
    join(rank, meeting)
    for family, names in jobs:
        inputs = batch(family, rows=2 * WORLD)
        mine = {key: value[rank::WORLD] for key, value in inputs.items()}
        alone = losses(operated(family, names), inputs)
        wrapped = composer_model(operated(family, names))
        mark_layers(wrapped)
        layers = [m for m in wrapped.modules() if is_layer(m)]
        parallelize_composer_model(wrapped, None, FSDP2Config(mixed_precision="FULL"), "fp32")
        sharded = losses(wrapped.model, mine, shared=True)
        if not all(type(m).__name__.startswith("FSDP") for m in layers) or (
            not layers and family != "albert"
        ):
            failures.append((rank, family, names, "layers aren't sharded by themselves"))
        if not all(abs(a - b) < 1e-9 * abs(a) for a, b in zip(alone, sharded, strict=True)):
            failures.append((rank, family, names, alone, sharded))
    dist.destroy_process_group()
