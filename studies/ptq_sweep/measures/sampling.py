"""Sampling in which models, temperatures and top_k share their random numbers.

1. The prompts are read once; their cache is repeated for each pair of a temperature and a top_k.
2. At each step each row takes the largest of logits / temperature + Gumbel noise, among its top_k: a sample
   of softmax(logits / temperature) over them (the Gumbel-max trick).
3. The noise depends on the seed, the step, the prompt and the token alone. So two models, or two settings,
   take different tokens only where their probabilities differ: a comparison has less noise of its own.

A short text is the beginning of a longer one with the same seed, so one call serves all max_new_tokens.
"""

import hashlib
import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


@torch.no_grad()
def sample(
    model: Any,
    prompts: Tensor,
    settings: Sequence[tuple[float, int]],
    seed: int,
    new: int,
    ends: Collection[int],
) -> list[list[list[int]]]:
    """Texts for each setting and prompt: up to `new` token ids, the last being one of `ends` if it came.

    Args:
        prompts: token ids (prompts, length), on the device of the model's inputs.
        settings: pairs of temperature and top_k.
    """
    cache, first = read_prompts(model, prompts)
    cache.batch_repeat_interleave(len(settings))
    logits = first.repeat_interleave(len(settings), 0)
    temperatures, top_k = (torch.tensor(x, device=logits.device) for x in zip(*settings, strict=True))
    temperatures, top_k = temperatures.repeat(len(prompts)), top_k.repeat(len(prompts))
    mask = torch.ones(len(logits), prompts.shape[1], dtype=torch.long, device=prompts.device)
    running = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    ids: list[Tensor] = []
    for step in range(new):
        gumbel = noise(seed, step, len(prompts), logits).repeat_interleave(len(settings), 0)
        ids.append(choose(logits, temperatures, top_k, gumbel))
        running &= ~torch.isin(ids[-1], torch.tensor(list(ends), dtype=torch.long, device=logits.device))
        if step == new - 1 or not running.any():
            break
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        logits = forward(model, ids[-1][:, None].to(prompts.device), mask, cache)[:, -1].float()
    rows = [until_end(row, ends) for row in torch.stack(ids, 1).tolist()]
    return [rows[index :: len(settings)] for index in range(len(settings))]


def read_prompts(model: Any, prompts: Tensor) -> tuple[Any, Tensor]:
    """The cache of `prompts` (rows, length), and the next token's logits in float32, (rows, vocabulary)."""
    cache = DynamicCache(config=model.config)
    logits = forward(model, prompts, torch.ones_like(prompts), cache, logits_to_keep=1)
    return cache, logits[:, -1].float()


def forward(model: Any, ids: Tensor, mask: Tensor, cache: Any, **options: Any) -> Tensor:
    """Logits (rows, length, vocabulary) of `ids` (rows, length), which are added to `cache`.

    Args:
        mask: 1 for each token of the cache and of `ids`, (rows, all of them).
    """
    # transformers 5.24 has renamed the argument.
    name = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
    return model(ids, attention_mask=mask, use_cache=True, **{name: cache}, **options).logits


def choose(logits: Tensor, temperatures: Tensor, top_k: Tensor, gumbel: Tensor) -> Tensor:
    """Ids (rows,) sampled from `logits` (rows, vocabulary); `gumbel` has their shape, the others (rows,)."""
    most = min(int(top_k.max()), logits.shape[-1])
    values, ids = logits.topk(most)
    scores = values / temperatures[:, None] + gumbel.gather(-1, ids)
    scores.masked_fill_(torch.arange(most, device=ids.device) >= top_k[:, None], -torch.inf)
    return ids.gather(-1, scores.argmax(-1, keepdim=True))[:, 0]


def noise(seed: int, step: int, prompts: int, like: Tensor) -> Tensor:
    """Gumbel noise (prompts, vocabulary) on the device of `like`."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    generator = torch.Generator(like.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    exponential = torch.empty(prompts, like.shape[-1], device=like.device).exponential_(generator=generator)
    return -exponential.log()


def until_end(ids: list[int], ends: Collection[int]) -> list[int]:
    """`ids` up to the first of `ends`, which is kept."""
    for index, token in enumerate(ids):
        if token in ends:
            return ids[: index + 1]
    return ids
