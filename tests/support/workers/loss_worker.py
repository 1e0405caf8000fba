"""What each process runs of a test of `chunked_loss` under DDP and FSDP."""

import warnings

import torch.distributed as dist
from composer.distributed.prepare_distributed import parallelize_composer_model
from composer.utils.parallelism import FSDP2Config
from ddp_worker import WORLD, join
from families import batch, build
from torch.nn.parallel import DistributedDataParallel

from cadenza.algorithms import apply_chunked_loss
from cadenza.models import composer_model
from cadenza.recipe.parallelism import mark_layers

FAMILY = "llama"  # its loss divides by num_items_in_batch


def gradients(model, inputs, count):
    """By name, after a loss that is summed over `count` rows."""
    model(**inputs, num_items_in_batch=count).loss.backward()
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def wrapped(kind):
    """A model after surgery, under DDP or FSDP."""
    model = build(FAMILY).double()
    apply_chunked_loss(model, rows=4)
    if kind == "ddp":
        return DistributedDataParallel(model)
    outer = composer_model(model)
    mark_layers(outer)
    parallelize_composer_model(outer, None, FSDP2Config(mixed_precision="FULL"), "fp32")
    return outer.model


def worker(rank, meeting, jobs, failures):
    warnings.simplefilter("ignore")
    join(rank, meeting)
    inputs = batch(FAMILY, rows=2 * WORLD)
    count = (inputs["labels"][:, 1:] != -100).sum()
    expected = gradients(build(FAMILY).double(), inputs, count)
    mine = {key: value[rank::WORLD] for key, value in inputs.items()}
    for kind in jobs:
        found = gradients(wrapped(kind), mine, count / WORLD)  # ranks are averaged
        for name, gradient in expected.items():
            whole = found[name].full_tensor() if hasattr(found[name], "full_tensor") else found[name]
            if not (whole - gradient).abs().max() < 1e-6 * gradient.abs().max() + 1e-9:
                failures.append((rank, kind, name))
    dist.destroy_process_group()
