"""The study: each cell that isn't done yet is answered and scored, and gets a row in ruler.csv."""

import gc
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cadenza.data.text.prepared.key import tokenizer_digest
from cadenza.studies.checks import StudyError, intervals, plots
from cadenza.studies.report import Row
from cadenza.studies.ruler import models, questions
from cadenza.studies.ruler.cells import FILE, Cell, cells_of, done, settings
from cadenza.studies.ruler.examples import Examples, LeftOut
from cadenza.studies.ruler.generation import answers
from cadenza.studies.ruler.material import Material, prose
from cadenza.studies.ruler.models import Checkpoint
from cadenza.studies.ruler.settings import Ruler
from cadenza.studies.ruler.tasks.table import QUESTIONS, TASKS
from cadenza.studies.running import cells
from cadenza.studies.running.alone import alone

ANSWERS = "answers.jsonl"
NO_FILE = "there is no file of questions; name one by {0}"


@dataclass
class Found:
    """The rows of all cells; and which tasks were left out, at which length or at all, with the reason.

    `notes` are lines about models.
    """

    rows: dict[Cell, Row] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """A checkpoint with what its cells need."""

    checkpoint: Checkpoint
    tokenizer: Any
    examples: Examples
    settings: str


def run(cfg: Ruler) -> Found:
    """Score the missing cells; returns all of them, with those of earlier runs.

    Raises:
        StudyError: a model that can't be scored as asked, or no task that can be asked; nothing is run then.
    """
    plots()
    intervals()
    material, made_of = _material(cfg)
    jobs = _jobs(cfg, material, made_of)
    tasks = [task for task in cfg.tasks if task not in QUESTIONS or task in material.questions]
    if not tasks:
        raise StudyError(f"tasks: {', '.join(cfg.tasks)} need files of questions; name them by qa_1 and qa_2")
    found = Found(left_out={task: NO_FILE.format(task) for task in cfg.tasks if task not in tasks})
    notes = (models.extrapolated(job.checkpoint, cfg.lengths) for job in jobs)
    found.notes = list(dict.fromkeys(note for note in notes if note))
    with alone(Path(cfg.out)):
        for job in jobs:
            _score(cfg, job, cells_of(cfg, job.checkpoint, tasks), found)
    if not found.rows:
        raise StudyError(f"lengths: no task fits them; {_reasons(found)}")
    return found


def _reasons(found: Found) -> str:
    return "; ".join(reason for what, reason in found.left_out.items() if " at " in what)


def _material(cfg: Ruler) -> tuple[Material, Any]:
    texts, made_of = prose(cfg.prose)
    files = {name: path for name in QUESTIONS if (path := getattr(cfg, name)) and name in cfg.tasks}
    return Material(texts, {name: questions.read(path, name) for name, path in files.items()}), made_of


def _jobs(cfg: Ruler, material: Material, made_of: Any) -> list[Job]:
    """Checks all models; those with the same tokenizer share their examples."""
    shared: dict[str, Examples] = {}
    found = []
    for checkpoint in models.checkpoints(cfg):
        models.identity(
            checkpoint
        )  # a path without weights is named before it is taken for a name on the Hub
        tokenizer = models.tokenizer_of(checkpoint, max(cfg.lengths))
        examples = shared.setdefault(tokenizer_digest(tokenizer), Examples(tokenizer, material, cfg.examples))
        key = settings(cfg, checkpoint, tokenizer, material, made_of)
        found.append(Job(checkpoint, tokenizer, examples, key))
    return found


def _score(cfg: Ruler, job: Job, every: list[Cell], found: Found) -> None:
    """Add the rows of a checkpoint's cells to `found`; its model is loaded if one is missing."""
    kept = done(cfg, job.settings)
    found.rows.update({cell: kept[cell] for cell in every if cell in kept})
    todo = [cell for cell in every if cell not in kept and _can_be_asked(job, cell, found)]
    if not todo:
        return
    model = models.load(job.checkpoint, cfg.dtype)
    for cell in tqdm(todo, desc=job.checkpoint.model, unit="cell"):
        found.rows[cell] = _scored(cfg, job, model, cell)
    del model
    gc.collect()


def _can_be_asked(job: Job, cell: Cell, found: Found) -> bool:
    try:
        job.examples.of(cell.task, cell.length, cell.seed)
    except LeftOut as error:
        found.left_out.setdefault(f"{cell.task} at {cell.length}", str(error))
        return False
    return True


def _scored(cfg: Ruler, job: Job, model: Any, cell: Cell) -> Row:
    """Answer the examples of a cell; its answers and its row are appended to the files."""
    began, task = time.perf_counter(), TASKS[cell.task]
    asked = job.examples.of(cell.task, cell.length, cell.seed)
    prompts = [job.examples.ids(example) for example in asked]
    given = answers(model, job.tokenizer, prompts, task.answer_tokens, cfg.batch_size)
    expected = [example.expected for example in asked]
    row = {
        **cell._asdict(),
        "examples": len(asked),
        "score": statistics.fmean(map(task.score, given, expected)),
        "seconds": round(time.perf_counter() - began, 2),
        "settings": job.settings,
    }
    with (Path(cfg.out) / ANSWERS).open("a", encoding="utf-8") as file:
        for answer, right in zip(given, expected, strict=True):
            file.write(json.dumps({**cell._asdict(), "expected": right, "answer": answer}) + "\n")
    cells.append(Path(cfg.out) / FILE, row)
    return row
