"""Greedy answers to prompts, in batches with a cache.

Prompts of a batch are padded in front, so that their ends stand side by side; the padding is masked. In
float32 the answers are those of the prompts one by one; in bfloat16 rounding depends on the batch's shape.
"""

from typing import Any

import torch

from cadenza.data.text.datasets.windows import anchor_id
from cadenza.studies.checks import StudyError

CPU_TOKENS = 16_384  # of a batch


def answers(
    model: Any, tokenizer: Any, prompts: list[list[int]], answer_tokens: int, batch_size: int | None = None
) -> list[str]:
    """What the model writes after each of the prompts, which are token ids without special tokens.

    Args:
        batch_size: prompts at a time. None: on CUDA all, and half as many each time that memory runs out; on
            a CPU up to `CPU_TOKENS` tokens.

    Raises:
        StudyError: one prompt alone doesn't fit in the memory of the device.
    """
    most = 1 + max(map(len, prompts)) + answer_tokens
    rows = batch_size or (len(prompts) if model.device.type == "cuda" else max(1, CPU_TOKENS // most))
    while True:
        try:
            parts = [prompts[start : start + rows] for start in range(0, len(prompts), rows)]
            return [text for part in parts for text in _written(model, tokenizer, part, answer_tokens)]
        except torch.OutOfMemoryError as error:
            if rows == 1:
                raise StudyError(
                    f"lengths: {most} tokens don't fit in the memory of {model.device}"
                ) from error
            rows = -(-min(rows, len(prompts)) // 2)


@torch.no_grad()
def _written(model: Any, tokenizer: Any, prompts: list[list[int]], answer_tokens: int) -> list[str]:
    """Of one batch; each prompt follows the anchor, BOS or else EOS."""
    rows = [[anchor_id(tokenizer), *prompt] for prompt in prompts]
    width, padding = max(map(len, rows)), _padding(tokenizer)
    ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    found = model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        max_new_tokens=answer_tokens,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # a folder's generation_config.json may hold another one
        use_cache=True,
        pad_token_id=padding,
    )
    return [tokenizer.decode(row[width:], skip_special_tokens=True) for row in found]


def _padding(tokenizer: Any) -> int:
    """A token that decoding leaves out."""
    return anchor_id(tokenizer) if tokenizer.eos_token_id is None else tokenizer.eos_token_id
