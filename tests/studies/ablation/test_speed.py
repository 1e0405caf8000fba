"""How steps are timed: in turns, without the first ones, by real training that leaves nothing behind."""

import json

import pytest
import torch
from paths import ROOT

from cadenza.studies.ablation import speed
from cadenza.studies.running.source import Source

TINY = (
    "model.config={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}",
    *("tokenizer.vocab_size=300", "data.max_seq_len=16", "train.global_batch_size=8", "loggers={}"),
    *(
        "tokenizer.name=wordpiece",
        "data.long_documents=truncate",
        "train.precision=fp32",
        "data.num_workers=0",
    ),
)


def test_rows_take_turns_and_the_first_rounds_dont_count(monkeypatch):
    order = []

    class Counting:
        def __init__(self, source):
            self.name = source

        def turn(self, turn):
            order.append(self.name)
            return float(turn)

    monkeypatch.setattr(speed, "Stepper", Counting)
    found = speed.measure({"a": "a", "b": "b"}, 3)
    assert order == list("baabbaabba"), "neither is always the first"
    assert found == {"a": [2.0, 3.0, 4.0], "b": [2.0, 3.0, 4.0]}


def test_a_step_is_the_median_between_ends_of_batches():
    """The first batch of a turn only starts the clock, and a turn doesn't count the time before it."""
    clock, now = speed.Clock(0), iter([0.0, 1.0, 3.0, 13.0, 100.0, 101.0])
    clock.now = lambda: next(now)
    for _ in range(4):
        clock.batch_end(None, None)
    assert clock.step() == 2.0
    for _ in range(2):
        clock.batch_end(None, None)
    assert clock.step() == 1.0


@pytest.mark.parametrize(
    ("threads", "workers", "name"), [(1, 0, "process_time"), (2, 0, "perf_counter"), (1, 1, "perf_counter")]
)
def test_cpu_time_counts_where_one_thread_does_all(threads, workers, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert speed.Clock(workers).now is getattr(speed.time, name)


def test_a_turn_is_real_training(tmp_path, monkeypatch):
    """With the techniques, on other batches each turn; schedules cover the turn; nothing is written."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    words = [f"the {a} sees the {b} run" for a in "abcdefghijkl" for b in "mnopqrstuvwx"]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    more = ("data.source=text.jsonl", "algorithms={alibi: {}, masking_schedule: {initial: 0.5, final: 0.1}}")
    stepper = speed.Stepper(Source("a", (str(ROOT / "yamls/bert.yaml"),), (*TINY, *more)))
    seen, trainer = [], stepper.trainer
    assert trainer.state.model.model.bert.embeddings.position_embeddings.weight is None
    batch_end = stepper.clock.batch_end

    def noting(state, logger):
        seen.append((state.dataloader.collate_fn.mlm_probability, state.batch["draw"].tolist()))
        batch_end(state, logger)

    stepper.clock.batch_end = noting
    before = trainer.state.model.model.bert.embeddings.word_embeddings.weight.clone()
    assert stepper.turn(0) > 0
    assert stepper.turn(1) > 0
    assert not torch.equal(before, trainer.state.model.model.bert.embeddings.word_embeddings.weight)
    assert [ratio for ratio, _ in seen] == pytest.approx([0.5, 0.42, 0.34, 0.26, 0.18] * 2)
    draws = [draw for _, batch in seen for draw in batch]
    assert len(set(draws)) == len(draws) == 2 * speed.STEPS * 8
    assert not (tmp_path / "runs").exists()
