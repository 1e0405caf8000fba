"""MDS shards through mosaicml-streaming, where it is installed."""

import pytest
from streams import same

from cadenza.data import DataError, TextConfig, build_dataspec, documents, train_texts, train_wordpiece

streaming = pytest.importorskip("streaming", reason="NOT VERIFIED HERE: needs mosaicml-streaming")
TEXTS = [f"document number {n} says {n * n}" for n in range(400)]


@pytest.fixture
def shards(tmp_path):
    """A folder with the splits `train` and `val`; their fields are `text` and `id`."""
    for split, texts in {"train": TEXTS[:300], "val": TEXTS[300:]}.items():
        options = {"columns": {"text": "str", "id": "int"}, "size_limit": 2048}
        with streaming.MDSWriter(out=str(tmp_path / "mds" / split), **options) as writer:
            for number, text in enumerate(texts):
                writer.write({"text": text, "id": number})
    return TextConfig(source="mds", local=str(tmp_path / "mds"), eval_split="val", eval_documents=None)


def test_each_split_is_read_once_and_training_in_another_order(shards):
    train = list(documents(shards, train=True, seed=1))
    assert set(train) == set(TEXTS[:300])
    assert len(train) == 384, "a multiple of 128 canonical nodes"
    assert train[:300] != TEXTS[:300]
    assert train == list(documents(shards, train=True, seed=1))
    assert train != list(documents(shards, train=True, seed=2))
    assert list(documents(shards, train=False, seed=1)) == TEXTS[300:]


def test_a_copy_is_made_of_remote_shards(shards, tmp_path):
    remote, local = shards.local, tmp_path / "local"
    cfg = TextConfig(source="mds", remote=remote, local=str(local), eval_split="val")
    assert list(documents(cfg, train=False)) == TEXTS[300:]
    assert (local / "val/index.json").is_file()


def test_batches_of_shards_train_anew_in_each_pass(shards):
    tokenizer = train_wordpiece(TEXTS, 300)
    loader = build_dataspec(shards, tokenizer, train=True, batch_size=10, seed=1).dataloader
    first, second = ([set(batch["draw"].tolist()) for batch in loader] for _ in range(2))
    assert len(set().union(*first)) == 380, "whole batches of 384"
    assert not set().union(*first) & set().union(*second), "other draws, and so other masks"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_shards_go_on_behind_a_checkpoint(shards, workers):
    """In the second pass, which is shuffled otherwise than the first one."""
    tokenizer, shards.num_workers = train_wordpiece(TEXTS, 300), workers

    def loader():
        return build_dataspec(shards, tokenizer, train=True, batch_size=10, seed=1).dataloader

    one = loader()
    list(one)
    second = iter(one)
    for _ in range(5):
        next(second)
    state = one.dataset.state_dict(50, True)
    rest = list(second)
    resumed = loader()
    resumed.dataset.load_state_dict(state)
    assert same(list(resumed), rest)


def test_what_is_missing_is_said(shards, tmp_path):
    with pytest.raises(DataError, match=r"needs data\.remote or data\.local"):
        documents(TextConfig(source="mds"), train=True)
    with pytest.raises(DataError, match=r"mds at .*/none, split train, can't be read"):
        documents(TextConfig(source="mds", local=str(tmp_path / "none")), train=True)
    with pytest.raises(DataError, match="a row of the stream has no 'body'; it has id, text"):
        list(documents(TextConfig(source="mds", local=shards.local, text_field="body"), train=True))


def test_one_of_several_ranks_reads_all_of_the_shards_by_itself(shards, monkeypatch):
    """For a tokenizer: what reads them for training would wait for the other ranks."""
    from composer.utils import dist

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(streaming, "StreamingDataset", None)
    assert list(train_texts(shards)) == TEXTS[:300]
    shards.remote = "s3://somewhere"
    with pytest.raises(DataError, match=r"^tokenizer.name: a tokenizer is trained on one rank, which can't"):
        list(train_texts(shards))
