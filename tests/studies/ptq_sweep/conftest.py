"""A small model with a tokenizer, a text, and the settings of a short study."""

import pytest
from families import build

from cadenza.data import train_byte_bpe
from cadenza.models import save

TEXT = "\n".join(f"some plain words of a text that has number {n * n}." for n in range(200))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with two models, `tiny` and `other`, and `text.txt`."""
    folder = tmp_path_factory.mktemp("ptq")
    words = train_byte_bpe([TEXT], 300)
    for seed, name in enumerate(("tiny", "other")):
        # Of 64 inputs, since bitsandbytes shares a statistic among 64 weights.
        config = {"vocab_size": len(words), "hidden_size": 64, "intermediate_size": 128}
        model = build("llama", seed=seed, initializer_range=0.2, max_position_embeddings=64, **config)
        save(model, folder / name, words)
    (folder / "text.txt").write_text(TEXT)
    return folder


@pytest.fixture
def pairs(small, tmp_path):
    """Settings of a short study."""
    pytest.importorskip("scipy")
    return [
        *("temperatures=[0.5,1.0]", "top_k=[5,20]", "max_new_tokens=[3,6]", "seeds=[0,1]", "dtype=float32"),
        *("windows=3", "window=16", "prompts=2", "prompt=4", "batch_sizes=[1,2]", "rounds=2"),
        *("decode_tokens=2", f"models=[{small / 'tiny'}]", f"texts=[{small / 'text.txt'}]"),
        f"out={tmp_path / 'out'}",
    ]
