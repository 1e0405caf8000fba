"""Two gloo processes: DDP over every technique and family equals one process on the whole batch."""

import socket

import pytest
import torch.multiprocessing as mp
from cases import PAIRS, claimed
from ddp_worker import WORLD, worker
from families import CONFIGS


@pytest.mark.slow
def test_ddp_equals_one_process():
    jobs = [(family, [name]) for name, family in PAIRS] + [(family, claimed(family)) for family in CONFIGS]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with mp.get_context("spawn").Manager() as manager:
        failures = manager.list()
        mp.spawn(worker, args=(port, jobs, failures), nprocs=WORLD)
        assert list(failures) == []
