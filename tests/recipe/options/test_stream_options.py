"""Every option of the section `data` that is about Hub data sets and shards, by what is opened."""

import sys
from types import SimpleNamespace

import pytest
from streams_of_recipes import HUB, SHARDS, data
from words import Words, asked  # noqa: F401

from cadenza.recipe import load


@pytest.mark.parametrize("option", HUB)
@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_an_option_of_hub_sets(option, objective, asked, monkeypatch):  # noqa: F811
    import datasets

    shuffled, shuffle = [], datasets.IterableDataset.shuffle

    def noted(self, seed, buffer_size):
        shuffled.append((seed, buffer_size))
        return shuffle(self, seed=seed, buffer_size=buffer_size)

    monkeypatch.setattr(datasets.IterableDataset, "shuffle", noted)
    pair, expected = HUB[option]
    pairs = ["data.source=some/set", f"model.objective={objective}", "seed=5", pair]
    data(load([], pairs), Words())
    assert asked == [(*each, True) for each in expected]
    assert shuffled == [(5, 7 if option == "shuffle_buffer" else 10000)]


def test_a_hub_set_is_downloaded(asked, tmp_path, monkeypatch):  # noqa: F811
    """With `stream: false`; its token ids are kept in `cache_dir`."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "elsewhere"))
    kept = f"data.cache_dir={tmp_path / 'kept'}"
    pairs = ["data.source=some/set", "data.stream=false", kept, "train.global_batch_size=4"]
    train, evaluation = data(load([], pairs), Words())
    assert asked == [("some/set", None, "train", False), ("some/set", None, "validation", False)]
    assert (len(train.dataloader.dataset), len(evaluation.dataloader.dataset)) == (40, 40)
    assert len([*(tmp_path / "kept/prepared").glob("*/train-00000.arrow")]) == 1, "of the same rows"
    assert not (tmp_path / "elsewhere").exists()
    few = data(load([], [*pairs, "data.eval_documents=3"]), Words())[1]
    assert len(few.dataloader.dataset) == 3


@pytest.mark.parametrize("option", SHARDS)
def test_an_option_of_shards(option, monkeypatch):
    opened = []
    streaming = SimpleNamespace(StreamingDataset=lambda **options: opened.append(options) or [])
    monkeypatch.setitem(sys.modules, "streaming", streaming)
    pair, expected = SHARDS[option]
    data(load([], ["data.source=mds", "data.local=b", "data.split=most", pair]), Words())
    found = [{key: options[key] for key in ("remote", "local", "split")} for options in opened]
    assert found == [{**expected, "split": split} for split in ("most", "validation")]
