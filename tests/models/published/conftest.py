"""Published folders that tests write."""

import json

import pytest
from modernbert_layout import OLD, drawn
from safetensors.torch import save_file


@pytest.fixture
def publish(tmp_path):
    """Writes a published folder with other fields or tensors than ModernBERT-base's."""

    def write(tensors=None, name="published", **fields):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        save_file(drawn() if tensors is None else tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**OLD, **fields}))
        return folder

    return write


@pytest.fixture
def published(publish):
    return publish()
