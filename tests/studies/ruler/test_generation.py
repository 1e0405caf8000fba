"""Answers in batches: equal to those one by one and to a plain greedy loop, behind the anchor."""

import pytest
import torch
from families import DECODERS, build
from words import Characters

from cadenza.studies.checks import StudyError
from cadenza.studies.ruler import generation
from cadenza.studies.ruler.generation import answers

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16], [20], [30, 31, 32, 33, 34]]


class Ids(Characters):
    """A tokenizer whose text is the ids."""

    def decode(self, ids, skip_special_tokens):
        assert skip_special_tokens
        return " ".join(str(int(i)) for i in ids if int(i) not in (1, 2))


def greedy(model, prompt, tokens):
    """The ids that a plain loop without cache and padding writes; it ends at EOS."""
    ids = [1, *prompt]
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
    return " ".join(str(i) for i in ids[1 + len(prompt) :] if i not in (1, 2))


@pytest.mark.parametrize("family", DECODERS)
def test_a_batch_is_answered_like_its_prompts_one_by_one(family):
    """In float32. The window of Mistral is shorter than the prompts with their answers."""
    own = {"sliding_window": 6} if family == "mistral" else {}
    model = build(family, initializer_range=0.3, **own)
    expected = [greedy(model, prompt, 9) for prompt in PROMPTS]
    for rows in (1, 3, 4):
        assert answers(model, Ids(), PROMPTS, 9, rows) == expected
    assert answers(model, Ids(), PROMPTS, 9) == expected
    assert len(set(expected)) > 1, "answers differ, so that rows that were swapped would be seen"


class Recorder:
    """A model that says what it was given, and that has no memory for more than `most` rows."""

    def __init__(self, most=100, device="cpu"):
        self.most, self.device, self.given = most, torch.device(device), []

    def generate(self, input_ids, **options):
        assert not torch.is_grad_enabled()
        self.given.append({"input_ids": input_ids.tolist(), **options})
        if len(input_ids) > self.most:
            raise torch.OutOfMemoryError
        return torch.cat([input_ids, torch.full((len(input_ids), 2), 7)], dim=1)


def test_prompts_are_padded_in_front_behind_the_mask():
    model = Recorder()
    assert answers(model, Ids(), [[5], [6, 7, 8]], 5) == ["7 7", "7 7"]
    (given,) = model.given
    assert given["input_ids"] == [[2, 2, 1, 5], [1, 6, 7, 8]]
    assert given["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    rest = {name: given[name] for name in ("max_new_tokens", "do_sample", "num_beams", "use_cache")}
    assert rest == {"max_new_tokens": 5, "do_sample": False, "num_beams": 1, "use_cache": True}


def test_the_anchor_is_eos_where_there_is_no_bos():
    class Qwen(Ids):
        bos_token_id = None

    model = Recorder()
    answers(model, Qwen(), [[5]], 5)
    assert model.given[0]["input_ids"] == [[2, 5]]


@pytest.mark.parametrize(("tokens", "sizes"), [(4, [4]), (9, [2, 2]), (1000, [1] * 4)])
def test_batches_on_a_cpu_hold_so_many_tokens(tokens, sizes, monkeypatch):
    """A prompt takes its tokens, the anchor, and its answer."""
    monkeypatch.setattr(generation, "CPU_TOKENS", 4 * (1 + 9 + 4))
    model = Recorder()
    answers(model, Ids(), [[5] * 9] * 4, tokens if tokens != 9 else 1 + 9 + 4 + 4)
    assert [len(given["input_ids"]) for given in model.given] == sizes


def test_memory_that_runs_out_halves_the_batch():
    model = Recorder(most=2)
    assert answers(model, Ids(), [[n] for n in range(5, 12)], 3, 7) == ["7 7"] * 7
    assert [len(given["input_ids"]) for given in model.given] == [7, 4, 2, 2, 2, 1]
    with pytest.raises(StudyError, match="lengths: 6 tokens don't fit in the memory of cpu"):
        answers(Recorder(most=0), Ids(), [[5, 6]], 3)


def test_a_generation_config_that_forbids_repetition_changes_nothing():
    model = build("llama")
    expected = answers(model, Ids(), PROMPTS, 9)
    model.generation_config.repetition_penalty = 5.0
    assert answers(model, Ids(), PROMPTS, 9) == expected
