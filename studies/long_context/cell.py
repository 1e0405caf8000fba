"""A cell of the study, trained and scored in its own process."""

import json
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from cadenza.data import documents
from cadenza.data.text.datasets.windows import anchor_id
from cadenza.models.pretrained.exported import model_folder
from cadenza.studies.checks import StudyError
from cadenza.studies.long_context import positions, recall, text
from cadenza.studies.long_context.plan import Cell
from cadenza.studies.long_context.settings import LongContext
from cadenza.studies.report import Row
from cadenza.studies.running.source import trained
from cadenza.surgery.checkpoint import safe_weights


def measured(cfg: LongContext, cell: Cell) -> Row:
    """Train the cell's model; its scores."""
    places = [f"train.run_folder={cell.folder.parent}", f"name={cell.name}", "train.autoresume=true"]
    recipe = cell.source.load(*cell.pairs, *places, "train.keep_checkpoints=1", "train.trust_load_path=true")
    record = trained(recipe)
    return {
        **{"row": cell.row, "seed": cell.seed},
        **{"tokens": record["train"]["real_tokens"], "seconds": record["train"]["seconds"]},
        **{name: json.dumps(found) for name, found in scores(cfg, cell, recipe).items()},
        "settings": cell.settings,
    }


def scores(cfg: LongContext, cell: Cell, recipe: Any) -> dict[str, Any]:
    """`losses` by part of a document, `recall` by length."""
    folder = model_folder(str(cell.folder), trusted=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, **safe_weights()).eval()
    anchor, longest = anchor_id(tokenizer), cfg.lengths[-1]
    found = positions.cut(evaluation_text(recipe), tokenizer, anchor, longest, cfg.documents)
    if not found:
        raise StudyError(f"lengths: no document for evaluation has {longest} tokens")
    prose = text.prose()
    asked = {length: recall.examples(tokenizer, prose, length, cfg.examples) for length in cfg.lengths}
    return {
        "losses": positions.losses(model, found),
        "recall": {n: recall.accuracy(model, tokenizer, anchor, each) for n, each in asked.items()},
    }


def evaluation_text(recipe: Any) -> list[Any]:
    """The evaluation documents of the recipe's own source, without those with keys and values."""
    parts = recipe.data.parts()
    return list(documents(parts[0][0], train=False))
