"""Folders of pretraining runs, made up: what a run leaves, without training."""

import json
from dataclasses import asdict

from omegaconf import OmegaConf

from cadenza.recipe.schema import Recipe

HOUR, TOKENS, FLOPS = 3600, 1000, 1e12  # of a batch


def recipe(name="base", **changes):
    """A recipe as a run keeps it; `changes` go by dotted keys, with `__` for dots."""
    made = OmegaConf.create(asdict(Recipe(name=name)))
    for key, value in changes.items():
        OmegaConf.update(made, key.replace("__", "."), value, force_add=True)
    return made


def run(folder, losses, *, hours=1.0, batches=None, flops=True, devices=8, ended=True, words=None, **changes):
    """A run's folder: a batch takes `hours`, 1,000 tokens and 1e12 FLOPs; `losses` are by batch."""
    folder.mkdir(parents=True)
    last = batches or max(losses)
    counted = [row(batch, hours, flops) for batch in range(last + 1)]
    rows = []
    for each in counted:
        rows += [each | {"loss": 9.0}] if each["batch"] else []
        if each["batch"] in losses:
            rows.append(each | {"evaluation": {"loss": losses[each["batch"]], "accuracy": 0.5}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (folder / "recipe.yaml").write_text(OmegaConf.to_yaml(recipe(folder.name, **changes)))
    if ended:
        record = {"train": {"batches": last}, "device": {"kind": "gpu", "name": "A", "world_size": devices}}
        (folder / "run.json").write_text(json.dumps(record))
    if words is not None:
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(words))
    return folder


def row(batch, hours, flops):
    """What every row has; the first evaluation comes before there are tokens."""
    counts = {"batch": batch, "samples": batch * 4, "seconds": batch * hours * HOUR}
    counts |= {"tokens": batch * TOKENS} if batch else {}
    return counts | ({"flops": batch * FLOPS} if flops else {})


def checkpoints(folder, *batches):
    """Empty files of the names that checkpoints have, and the link to the latest."""
    inside = folder / "checkpoints"
    inside.mkdir()
    paths = [inside / f"ep0-ba{batch}-rank0.pt" for batch in batches]
    for path in paths:
        path.touch()
    (inside / "latest-rank0.pt").symlink_to(paths[-1].name)
    return paths
