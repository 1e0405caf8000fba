"""Runs that are killed, run out of disk, or diverge: nothing saved is lost, and they go on as if unbroken."""

import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from faulty_runs import run, weights
from paths import ROOT
from patience import PATIENCE

from cadenza.recipe import RecipeError, TrainingError, load
from cadenza.recipe.checkpoints import LATEST, latest
from cadenza.recipe.run import train
from cadenza.surgery import CheckpointError

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms:
  {alibi: , glu: , vocab_padding: , unpadding: , sparse_prediction: , flash_attention: , sequence_packing: ,
   masking_schedule: {initial: 0.3, final: 0.15}}
scheduler: {t_warmup: 1ba}
optimizer: {lr: 1e-3}
train: {max_duration: 60ba, global_batch_size: 8, save_interval: 4ba, eval_interval: 1dur, autoresume: true,
  progress_bar: false}
"""
KILLS = 10


@pytest.fixture
def pairs(text, tmp_path):
    """The overrides by which everything that a run writes is under tmp_path."""
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return [f"data.source={text}", f"train.run_folder={tmp_path / 'runs'}"]


@pytest.fixture
def start(tmp_path, pairs, monkeypatch):
    """Starts a run in a process forked from a server that has everything loaded."""
    # There the server finds what it is to load.
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests/support/workers"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faulty_runs"])

    def start(*more, **options):
        arguments = tmp_path, [*pairs, *more]
        process = context.Process(target=run, args=arguments, kwargs=options)
        process.start()
        return process

    return start


@pytest.fixture
def ends(start, tmp_path):
    """Runs to the end: (exit code, what was said)."""

    def ends(*more, **options):
        process = start(*more, **options)
        process.join(PATIENCE)
        return process.exitcode, (tmp_path / "said.txt").read_text()

    return ends


@pytest.fixture
def here(pairs, tmp_path):
    """Plays in this process."""
    return lambda *more: train(load([str(tmp_path / "tiny.yaml")], [*pairs, *more]))


def assert_same(run, other):
    ours, theirs = weights(run / "checkpoints" / LATEST), weights(other / "checkpoints" / LATEST)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name]), name


def test_killed_at_any_moment_a_run_ends_with_the_same_weights(start, ends, tmp_path):
    """Moments are counted in checkpoints, so that no machine is too slow for them."""
    code, said = ends("name=whole")
    assert code == 0, said
    moments, kills = random.Random(4), 0
    while kills < KILLS or _saved(tmp_path / "runs/broken") < 2:  # of two, the first is whole
        process, saved = start("name=broken"), _saved(tmp_path / "runs/broken")
        more = moments.randint(0, 3)
        while process.exitcode is None and _saved(tmp_path / "runs/broken") < saved + more:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            kills += 1
            continue
        assert process.exitcode == 0, (tmp_path / "said.txt").read_text()
        assert_same(tmp_path / "runs/broken", tmp_path / "runs/whole")
        shutil.rmtree(tmp_path / "runs/broken")  # the next kills befall a new run
    code, said = ends("name=broken")
    assert code == 0, said
    assert "resumed after batch" in said
    assert_same(tmp_path / "runs/broken", tmp_path / "runs/whole")


def _saved(run):
    """The batch of the last checkpoint that a run began to write; 0 of none, in units of its interval."""
    batches = [int(path.name.split("-ba")[1].split("-")[0]) for path in run.glob("checkpoints/ep*-rank0.pt")]
    return max(batches, default=0) // 4


def test_a_full_disk_leaves_the_last_good_checkpoint(ends, tmp_path):
    code, said = ends("name=full", full_at=6)
    folder = tmp_path / "runs/full/checkpoints"
    assert code == 1
    assert f"TrainingError: {folder}/ep0-ba8-rank0.pt couldn't be saved" in said
    assert f"{folder}/ep0-ba4-rank0.pt is complete: train.autoresume=true" in said
    assert sorted(path.name for path in folder.iterdir()) == ["ep0-ba4-rank0.pt", LATEST]
    code, said = ends("name=full")
    assert (code, "resumed after batch 4" in said) == (0, True), said
    assert ends("name=whole")[0] == 0
    assert_same(tmp_path / "runs/full", tmp_path / "runs/whole")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_its_batch(here, tmp_path):
    with pytest.raises(
        TrainingError, match=r"the loss is nan at batch \d+ .* draws \d+, .* is saved in"
    ) as stop:
        here(
            "optimizer.name=sgd",
            "optimizer.lr=1000",
            "train.save_interval=1ba",
            "algorithms.sequence_packing=false",
        )
    at = int(str(stop.value).split("at batch ")[1].split()[0])
    saved = sorted(path.name for path in (tmp_path / "runs/tiny/checkpoints").glob("ep*"))
    assert saved == [f"ep0-ba{n}-rank0.pt" for n in range(1, at)], "the spoilt weights aren't saved"
    batch = torch.load(tmp_path / "runs/tiny/bad-batch-rank0.pt")
    assert batch["input_ids"].shape == batch["labels"].shape
    draws = ", ".join(str(n) for n in batch["draw"].tolist()[:8])
    assert f"draws {draws}" in str(stop.value)


def test_a_finished_run_is_evaluated_and_a_longer_one_goes_on(here, capsys):
    here("train.max_duration=4ba")
    first = here("train.max_duration=4ba").read_text()
    assert "nothing left to train: batch 4 is the end (4ba)" in capsys.readouterr().out
    assert '"unigram_entropy"' in first
    here("train.max_duration=6ba")
    assert "resumed after batch 4" in capsys.readouterr().out


def test_checkpoints_that_no_run_can_go_on_from(here, tmp_path):
    here("train.max_duration=4ba")
    good = tmp_path / "runs/tiny/checkpoints/ep0-ba4-rank0.pt"
    common = "name=second", "train.autoresume=false"

    def refused(path, error, message, *more):
        with pytest.raises(error, match=message):
            here(*common, f"train.load_path={path}", *more)

    cut, foreign = tmp_path / "cut.pt", tmp_path / "foreign.pt"
    cut.write_bytes(good.read_bytes()[:-500])
    torch.save({"weights": torch.ones(2)}, foreign)
    refused(tmp_path / "no.pt", CheckpointError, "there is no such checkpoint")
    refused(cut, CheckpointError, "not a whole checkpoint; it was cut off")
    refused(foreign, CheckpointError, "not a Composer checkpoint")
    refused(good, RecipeError, "trained on packed rows; to resume, add", "algorithms.sequence_packing=false")
    refused(good, CheckpointError, "is of another model", "model.config.hidden_size=16")
    refused(
        good,
        CheckpointError,
        r"with MaskingSchedule\(initial=0.3, final=0.2\)",
        "algorithms.masking_schedule.final=0.2",
    )
    refused(good, RecipeError, "masking_schedule is switched off, and", "algorithms.masking_schedule=false")


def test_another_seed_is_said_and_weights_alone_start_anew(here, tmp_path, capsys):
    here("train.max_duration=4ba")
    path = f"train.load_path={tmp_path}/runs/tiny/checkpoints/ep0-ba4-rank0.pt"
    capsys.readouterr()
    here("train.max_duration=6ba", "seed=3", "name=other", path)
    said = capsys.readouterr().out
    assert "resumed after batch 4" in said
    assert "seed 17 in the checkpoint, 3 here: order and masks of the data follow 3" in said
    record = here("train.max_duration=1ba", "name=anew", path, "train.load_weights_only=true")
    assert "resumed" not in capsys.readouterr().out
    assert '"batches": 1,' in record.read_text()


def test_two_processes_go_on_where_one_stopped(here, pairs, tmp_path):
    exact = [
        "algorithms.masking_schedule=false",
        "model.config.hidden_dropout_prob=0.0",
        "model.config.attention_probs_dropout_prob=0.0",
        "train.autoresume=false",
        "train.max_duration=8ba",
    ]
    here("name=one", *exact)
    first = tmp_path / "runs/one/checkpoints/ep0-ba4-rank0.pt"
    more = [*pairs, *exact, "name=two", f"train.load_path={first}"]
    composer = [str(Path(sys.executable).with_name("composer")), "-n", "2", "train.py"]
    done = subprocess.run(
        [*composer, str(tmp_path / "tiny.yaml"), *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "resumed after batch 4" in done.stdout
    one, two = (weights(tmp_path / f"runs/{name}/checkpoints" / LATEST) for name in ("one", "two"))
    begin = weights(first)
    for name, weight in one.items():
        assert (weight - two[name]).abs().max() < 1e-6, name
    assert max((weight - begin[name]).abs().max() for name, weight in one.items()) > 1e-3


def test_what_a_killed_run_leaves_is_put_right(tmp_path, capsys):
    def saved(batch, whole=True):
        path = tmp_path / f"ep0-ba{batch}-rank0.pt"
        torch.save({"batch": batch}, path)
        if not whole:
            path.write_bytes(path.read_bytes()[:-40])
        return path

    link = tmp_path / LATEST
    assert latest(tmp_path) is None
    one = saved(1)
    assert latest(tmp_path) == one
    assert link.resolve() == one, "a link that the killed run hadn't set yet"
    two, three = saved(2), saved(3, whole=False)
    link.unlink()
    link.symlink_to(three.name)
    assert latest(tmp_path) == two
    assert link.resolve() == two
    assert not three.exists()
    assert f"removed {three}" in capsys.readouterr().out
    one.unlink()
    two.unlink()
    assert latest(tmp_path) is None
    assert not link.is_symlink(), "Composer would follow it"
