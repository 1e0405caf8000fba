"""A track of seconds over a few lines of text, whose records lie under tmp_path."""

import os

import cell
import pytest
import run
import torch
import tracks
import verify
from omegaconf import OmegaConf

from cadenza.studies.running import missing

BASE = """
name: base
model:
  config: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
tokenizer: {vocab_size: 300}
data: {source: SOURCE, max_seq_len: 16, eval_fraction: 0.3, mlm_probability: 0.15, long_documents: split}
optimizer: {lr: 0.01}
train: {global_batch_size: 8, max_duration: 4ba, precision: fp32}
"""


class Place:
    """The track, and a way to make its records."""

    def __init__(self, folder, track, source):
        self.folder, self.track, self.source = folder, track, source

    def make(self, name, where="records", **values):
        """A record or candidate; `values` are the keys of its recipe."""
        made = self.folder / where / self.track.name / name
        made.mkdir(parents=True)
        facts = {"title": name, "changed": f"{name} is new", "sources": [str(self.folder / "base.yaml")]}
        OmegaConf.save(OmegaConf.create(facts), made / "record.yaml")
        OmegaConf.save(OmegaConf.from_dotlist([f"{k}={v}" for k, v in values.items()]), made / "recipe.yaml")
        return made


@pytest.fixture
def place(text, tmp_path, monkeypatch):
    """A track called `tiny` with a high target, in which every script's runs are calls in this process."""
    (tmp_path / "base.yaml").write_text(BASE.replace("SOURCE", str(text)))
    monkeypatch.setattr(tracks, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    tiny = tracks.Track("tiny", 9.0, (str(tmp_path / "base.yaml"),), threads=1, batch_size=8, evaluations=2)
    for module in (tracks, cell, run, verify):
        monkeypatch.setitem(module.TRACKS, "tiny", tiny)
    monkeypatch.setattr(missing, "run_jobs", lambda jobs, _: ((j, j.call(*j.arguments)) for j in jobs))
    threads, environment = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield Place(tmp_path, tiny, text)
    torch.set_num_threads(threads)
    if environment is not None:
        os.environ["OMP_NUM_THREADS"] = environment
    if cores is not None:
        os.sched_setaffinity(0, cores)
