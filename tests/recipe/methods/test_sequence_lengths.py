"""The sequence length warm-up in a recipe: its lengths by time, its counts, resumes, and what it refuses."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from composer.core import Event, Time, Timestamp
from trainers import trained

from cadenza.recipe import RecipeError, load
from cadenza.recipe import trainer as trainers
from cadenza.recipe.methods.sequence_lengths import SeqLengthWarmup

RECIPE = """
name: whole
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms: {seq_length_warmup: {max_seq_length: 24, min_seq_length: 8, step_size: 4, duration: 0.8}}
scheduler: {t_warmup: 0ba}
optimizer: {lr: 1e-2}
train: {max_duration: 10ba, global_batch_size: 8, device_train_microbatch_size: 4, eval_interval: 1dur,
  progress_bar: false}
"""
PACKED = (
    "algorithms.unpadding={}",
    "algorithms.sparse_prediction={}",
    "algorithms.flash_attention={}",
    "algorithms.sequence_packing={}",
)
CAUSAL = ("model.objective=causal_lm", "model.config.is_decoder=true")
KINDS = {"padded": (), "packed": PACKED, "causal": CAUSAL}


def at(duration, per_epoch=None, **times):
    """The state of a run of this duration, at a time."""
    length = None if per_epoch is None else Time.from_batch(per_epoch)
    end = Time.from_timestring(duration)
    return SimpleNamespace(max_duration=end, dataloader_len=length, timestamp=Timestamp(**times))


@pytest.mark.parametrize(
    ("duration", "unit", "scale"),
    [("20ba", "batch", 1), ("160sp", "sample", 8), ("2000tok", "token", 100), ("4ep", "batch", 1)],
)
def test_lengths_are_composers_steps_in_the_unit_of_the_duration(duration, unit, scale):
    """Of 20 batches the warm-up has 9: 3 for each of 3 steps."""
    warmup = SeqLengthWarmup(duration=0.45, min_seq_length=8, max_seq_length=23, step_size=5)
    found = [warmup.length_at(at(duration, 5, **{unit: n * scale})) for n in range(20)]
    assert found == [8] * 3 + [13] * 3 + [18] * 3 + [23] * 11


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (at("9ba"), {"step_size": 2, "duration": 0.5}, "fewer batches than the warm-up has steps; raise its"),
        (at("9sp"), {"step_size": 2, "duration": 0.5}, "fewer samples than the warm-up has steps"),
        (at("9tok"), {"step_size": 2, "duration": 0.5}, "fewer tokens than the warm-up has steps"),
        (at("9ba"), {"step_size": 17}, "8 to 24 tokens are less than one step_size, 17; lower"),
        (at("9ep"), {}, "train.max_duration must be in ba, sp or tok, or in ep of a finite source"),
        (at("9tok"), {"truncate": False}, r"truncate: false drops tokens that are counted, and train\.max_"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused(state, options, message):
    with pytest.raises(RecipeError, match=message):
        SeqLengthWarmup(max_seq_length=24, **options).length_at(state)


def test_classifiers_are_refused():
    chosen = "algorithms={seq_length_warmup: {max_seq_length: 128}}"
    with pytest.raises(
        RecipeError, match=r"algorithms\.seq_length_warmup is for language models; model\.obj"
    ):
        load([], ["model.objective=text_classification", "data.source=a.csv", chosen])


def test_a_loader_of_another_kind_is_refused():
    state = at("9ba", batch=0)
    state.dataloader = SimpleNamespace(collate_fn=list)
    warmup = SeqLengthWarmup(max_seq_length=24, duration=1.0)
    with pytest.raises(RecipeError, match=r"can't cut the rows of type before they are counted; it needs"):
        warmup.apply(Event.BEFORE_DATALOADER, state, None)


class Looks(trainers.Callback):
    """Keeps each batch, and the tokens that were counted before it."""

    def __init__(self):
        self.batches, self.tokens, self.losses = [], [], []

    def batch_start(self, state, logger):
        self.batches.append({name: value.clone() for name, value in state.batch.items()})

    def batch_end(self, state, logger):
        self.tokens.append(int(state.timestamp.token))
        self.losses.append(float(state.loss))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_rows_that_are_computed(kind, recipe):
    """And the rows are those of a run without the warm-up, cut."""
    cut, whole = Looks(), Looks()
    trained(recipe(*KINDS[kind]), cut)
    trained(recipe(*KINDS[kind], "name=plain", "algorithms.seq_length_warmup=false"), whole)
    lengths = [8, 8, 12, 12, 16, 16, 20, 20, 24, 24]
    masks = [
        batch["attention_mask"][:, :length] for batch, length in zip(whole.batches, lengths, strict=True)
    ]
    assert cut.tokens == list(itertools.accumulate(int(mask.sum()) for mask in masks))
    for ours, mask in zip(cut.batches, masks, strict=True):
        assert torch.equal(ours["attention_mask"], mask)
        assert ours["labels"].shape == mask.shape
    assert cut.losses != whole.losses
    assert all(loss > 0 for loss in cut.losses)


@pytest.mark.slow
@pytest.mark.parametrize("duration", ["60sp", "900tok"])
def test_a_duration_in_samples_or_tokens_ends_at_the_full_length(duration, recipe):
    looks = Looks()
    trainer = trained(recipe(f"train.max_duration={duration}"), looks)
    end = Time.from_timestring(duration)
    done = [8 * n for n in range(1, 99)] if duration.endswith("sp") else looks.tokens
    expected = [
        min(8 + 4 * (before // (int(0.8 * end.value) // 4)), 24)
        for before in [0, *done[: len(looks.batches) - 1]]
    ]
    assert [batch["input_ids"].shape[1] for batch in looks.batches] == expected
    assert expected[-1] == 24
    assert looks.tokens[-1] == sum(int(batch["attention_mask"].sum()) for batch in looks.batches)
    assert end <= trainer.state.timestamp.get(end.unit) < end.value + 8 * 24


RESUMED = {
    **KINDS,
    "tokens": ("train.max_duration=1100tok",),
    "workers": ("data.num_workers=2",),
    "more rows": ("algorithms.seq_length_warmup.truncate=false",),
    "epochs": ("train.max_duration=2ep", "train.save_interval=1ep"),
    "calibration": ("algorithms.quantization_aware_training={calibrate_until: 8ba}",),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESUMED)
def test_a_resume_goes_on_bit_for_bit_with_dropout(kind, recipe, tmp_path):
    whole, resumed = Looks(), Looks()
    pairs = "train.save_interval=5ba", "model.config.hidden_dropout_prob=0.2", *RESUMED[kind]
    first = trained(recipe(*pairs), whole)
    checkpoint = next((tmp_path / "runs/whole/checkpoints").glob("ep1-*" if kind == "epochs" else "*-ba5-*"))
    done = int(checkpoint.name.split("-ba")[1].split("-")[0])
    assert 0 < done < len(whole.losses)
    more = "name=resumed", f"train.load_path={checkpoint}", "train.trust_load_path=true"
    second = trained(recipe(*pairs, *more), resumed)
    assert resumed.losses == whole.losses[done:]
    assert resumed.tokens == whole.tokens[done:]
    for ours, theirs in zip(resumed.batches, whole.batches[done:], strict=True):
        assert all(torch.equal(values, theirs[name]) for name, values in ours.items())
    ours, theirs = first.state.model.state_dict(), second.state.model.state_dict()
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items())
