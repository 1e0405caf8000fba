"""Two gloo processes: DDP and FSDP over every technique and family equal one process on the whole batch."""

import tempfile

import ddp_worker
import fsdp_worker
import loss_worker
import pytest
import qat_worker
import torch.multiprocessing as mp
from cases import PAIRS, TOGETHER

EACH = [(family, [name]) for name, family in PAIRS]

CHOSEN = [job for job in EACH if job[0] == "bert" or job == ("llama", ["bf16_safe_rope"])]


def failures_of(worker, jobs):
    with tempfile.TemporaryDirectory() as folder, mp.get_context("spawn").Manager() as manager:
        failures = manager.list()
        mp.spawn(worker, args=(f"{folder}/meeting", jobs, failures), nprocs=ddp_worker.WORLD)
        return list(failures)


@pytest.mark.slow
def test_ddp_equals_one_process():
    assert failures_of(ddp_worker.worker, EACH + TOGETHER) == []


@pytest.mark.slow
def test_fsdp_trains_to_the_losses_of_one_process():
    assert failures_of(fsdp_worker.worker, CHOSEN + TOGETHER) == []


@pytest.mark.slow
def test_sums_over_ranks_are_those_of_one_process():
    """The norm of a gradient that is clipped, the averages of calibration, a loss without logits."""
    calibrated = ["batch_by_batch", "inner_model", "at_the_end", "uneven_batches", "uneven_layers"]
    workers = [
        (fsdp_worker.clipping_worker, [0.1]),
        (qat_worker.worker, [*calibrated, "uneven_states"]),
        (loss_worker.worker, ["ddp", "fsdp"]),
    ]
    assert failures_of(ddp_worker.in_turn, workers) == []
