"""What a record may change, and what it may not; which folders are records."""

import pytest
from records import before, found, numbered
from tracks import TRACKS

from cadenza.studies.checks import StudyError


def refusal(place, **values):
    place.make("01_x", **values)
    with pytest.raises(StudyError) as refused:
        found("01_x", place.track).recipe("seed=1")
    return str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.source", "python_docs"),
        ("data.eval_fraction", 0.2),
        ("data.eval_documents", 3),
        ("data.eval_mlm_probability", 0.3),
        ("data.long_documents", "truncate"),
        ("data.deduplicate", True),
        ("tokenizer.vocab_size", 301),
        ("tokenizer.lowercase", True),
        ("model.pretrained", "elsewhere"),
        ("train.load_path", "weights.pt"),
        ("train.autoresume", True),
    ],
)
def test_what_records_share_is_refused(place, key, value):
    said = refusal(place, **{key: value})
    assert said.startswith(f"01_x: {key} is {value!r}; it must be ")
    assert said.endswith("records share text, vocabulary, evaluation and start")


def test_precision_must_be_named(place):
    assert "train.precision is 'auto'; name fp32 or amp_bf16" in refusal(place, **{"train.precision": "auto"})


def test_a_causal_model_is_refused(place):
    said = refusal(place, **{"model.objective": "causal_lm", "model.model_type": "gpt2"})
    assert "model.objective is 'causal_lm'; it must be 'masked_lm'" in said


def test_all_else_is_free(place):
    place.make(
        "01_x",
        **{"data.mlm_probability": 0.3, "data.max_seq_len": 12, "data.masking": "whole_word"},
        **{"algorithms.sequence_packing": "{}", "algorithms.unpadding": "{}", "optimizer.name": "adamw"},
        **{"scheduler.alpha_f": 0.5, "train.global_batch_size": 4, "train.max_duration": "2ep"},
        **{"model.config.hidden_size": 32, "data.num_workers": 1, "train.precision": "amp_bf16"},
    )
    recipe = found("01_x", place.track, ["optimizer.lr=0.5"]).recipe("seed=3")
    assert (recipe.seed, recipe.optimizer.lr, recipe.data.max_seq_len) == (3, 0.5, 12)


@pytest.mark.parametrize("name", TRACKS)
def test_the_records_in_the_repository_keep_the_rules(name):
    for folder in (*numbered(TRACKS[name].records), *numbered(TRACKS[name].tried)):
        assert found(folder.name, TRACKS[name]).recipe()


def test_the_record_before(place):
    for name in ("01_a", "02_b", "03_c"):
        place.make(name, **{"optimizer.lr": 0.1})
    place.make("07_d", "tried", **{"optimizer.lr": 0.1})
    names = {name: before(found(name, place.track)) for name in ("01_a", "03_c", "07_d")}
    assert {name: last and last.name for name, last in names.items()} == {
        "01_a": None,
        "03_c": "02_b",
        "07_d": "03_c",
    }
    assert found(None, place.track).name == "03_c"


def test_folders_that_are_none(place):
    with pytest.raises(StudyError, match="track tiny has no records yet"):
        found(None, place.track)
    folder = place.make("01_a", **{"optimizer.lr": 0.1})
    with pytest.raises(StudyError, match=r"there is no record 01_b; did you mean '01_a'\?"):
        found("01_b", place.track)
    (folder / "record.yaml").write_text("title: x\n")
    with pytest.raises(StudyError, match="its keys must be title, changed, sources"):
        found("01_a", place.track).recipe()
    (folder / "record.yaml").unlink()
    with pytest.raises(StudyError, match=r"there is no record.yaml in it"):
        found("01_a", place.track).recipe()
