"""The memory that D is said to need, against what is allocated, and how many shifts it lets run at once."""

import weakref

import pytest
import torch
from families import build
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from cadenza.studies.checks import StudyError
from cadenza.studies.rope_precision import memory, row_blocks
from cadenza.studies.rope_precision.discrepancy import discrepancies

TOKENS = 256


class Allocated(TorchDispatchMode):
    """Counts the bytes of the storages that operations make, until each is freed."""

    def __init__(self):
        super().__init__()
        self.live, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {storage._cdata for storage in storages((args, kwargs))}
        for storage in storages(out):
            if storage._cdata not in given | self.live.keys():
                self.live[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.live.pop, storage._cdata, None)
        self.most = max(self.most, sum(self.live.values()))
        return out


def storages(tree):
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


WIDE = {"hidden_size": 128, "head_dim": 32, "num_key_value_heads": 4}
CASES = {
    "probabilities": ("llama", torch.float32, 2**24, 1, {}),
    "query, key, value": ("llama", torch.bfloat16, 2**16, 2, WIDE),
    "feed-forward": ("llama", torch.float32, 2**16, 1, {"intermediate_size": 512}),
    "several shifts": ("qwen3", torch.bfloat16, 2**17, 4, {"hidden_size": 64}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_allocated_is_a_little_less_than_what_is_said(case, monkeypatch):
    family, dtype, block, shifts, sizes = CASES[case]
    monkeypatch.setattr(row_blocks, "BLOCK", block)
    model = build(family, attention="eager", max_position_embeddings=TOKENS, **sizes).to(dtype)
    ids = torch.arange(TOKENS) % 90
    with Allocated() as allocated:
        discrepancies(model, ids, 0, range(1, shifts + 1))
    said = memory.parts(model, 1 + shifts, TOKENS, dtype)
    assert 0.6 * memory.peak(said) < allocated.most <= memory.peak(said)
    if case in said:
        assert said[case] == max(said.values()), "the case is about its part"


def seven_billion():
    """Llama 2 at 7B, without weights: the defaults of transformers' config."""
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig())


def test_seven_billion_parameters_at_4096_tokens_take_less_than_4_gb():
    model = seven_billion()
    config = model.config
    assert (config.hidden_size, config.intermediate_size, config.num_hidden_layers) == (4096, 11_008, 32)
    for dtype in (torch.float32, torch.bfloat16):
        assert memory.at_once(model, 1, 4096, dtype, 4 * memory.GB) == 1
        assert memory.peak(memory.parts(model, 2, 4096, dtype)) < 2.5 * memory.GB
    kept = 2 * 32 * 32 * 4096**2 * 4  # the probabilities of all layers, of both positions
    assert kept > 60 * memory.peak(memory.parts(model, 2, 4096, torch.float32))


def test_as_many_shifts_run_at_once_as_fit():
    model = seven_billion()
    needed = [memory.peak(memory.parts(model, 1 + n, 4096, torch.float32)) for n in (1, 2, 3)]
    assert needed == sorted(needed)
    assert [memory.at_once(model, 2, 4096, torch.float32, size) for size in needed] == [1, 2, 2]
    with pytest.raises(StudyError, match=r"--memory is 1 GB; one shift of 4096 tokens needs .* GB beside"):
        memory.at_once(model, 2, 4096, torch.float32, memory.GB)


def test_the_arithmetic_is_shown_by_part():
    line = memory.described(seven_billion(), 2, 4096, torch.bfloat16)
    found = memory.parts(seven_billion(), 2, 4096, torch.bfloat16)
    assert line.startswith(
        f"bfloat16: {memory.peak(found) / 1e6:,.0f} MB beside the weights, 1 shift at once ("
    )
    assert all(name in line for name in found)
