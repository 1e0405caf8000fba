"""The study, model by model; one copy of it stands on a device at a time, except while speeds are measured.

1. The unquantized model's log-probabilities on each text go to disk, where a cell still needs them.
2. Each format, the unquantized model among them: its measures on the texts, then the texts that it generates,
   whose token ids go to disk.
3. The unquantized model measures all generated texts.
4. Each format that has a kernel is timed in turns with the unquantized model.

A cell that has a row isn't computed again, nor are token ids that stand on disk.
"""

import gc
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from cadenza.quantization.stored.formats import FORMATS, FourBit, require_library
from cadenza.quantization.stored.int8 import Int8
from cadenza.studies.checks import intervals, plots
from cadenza.studies.memory import weight_bytes
from cadenza.studies.ptq_sweep import models, plan
from cadenza.studies.ptq_sweep.measures import generated, prediction, reference, sampling, speed
from cadenza.studies.ptq_sweep.models import Subject
from cadenza.studies.ptq_sweep.plan import Generation, Prediction, Sampled, Speed, Table
from cadenza.studies.ptq_sweep.results import Results
from cadenza.studies.ptq_sweep.settings import PLAIN, Sweep
from cadenza.studies.running.alone import alone


def run(cfg: Sweep) -> Results:
    """Compute the missing cells; returns what all of them say, with those of earlier runs.

    Raises:
        StudyError: a model or a text doesn't fit the settings; nothing is computed then.
    """
    plots()
    intervals()
    if any(isinstance(FORMATS.get(form), FourBit | Int8) for form in cfg.formats):
        require_library()
    subjects = models.subjects(cfg)
    works = [Work(cfg, subject) for subject in subjects]
    with alone(Path(cfg.out)):
        total = sum(len(work.every()) for work in works)
        left = sum(len(work.missing()) for work in works)
        with tqdm(total=total, initial=total - left, unit="cell") as bar:
            for work in works:
                work.bar = bar
                work.do()
    rows = [work.rows() for work in works]
    families = {subject.label: subject.family for subject in subjects}
    return Results(families, *([row for found in rows for row in found[kind]] for kind in range(3)))


class Work:
    """What is to be computed of one model."""

    bar: Any

    def __init__(self, cfg: Sweep, subject: Subject) -> None:
        self.cfg, self.subject = cfg, subject
        wanted = plan.predictions, plan.generations, plan.speeds
        self.wanted: list[dict[Any, str]] = [kind(cfg, subject) for kind in wanted]
        self.tables = [Table(cfg.out, kind) for kind in (Prediction, Generation, Speed)]

    def every(self) -> list[Any]:
        """All cells."""
        return [cell for cells in self.wanted for cell in cells]

    def missing(self) -> list[Any]:
        """The cells without a row."""
        pairs = zip(self.tables, self.wanted, strict=True)
        return [cell for table, cells in pairs for cell in table.missing(cells)]

    def rows(self) -> list[list[dict[str, Any]]]:
        """The rows of predictions, of generations and of speeds."""
        return [table.rows(cells) for table, cells in zip(self.tables, self.wanted, strict=True)]

    def do(self) -> None:
        """Compute the missing cells."""
        (Path(self.cfg.out) / "generated").mkdir(exist_ok=True)
        for form in plan.ordered(self.cfg):
            self._format(form)
        for cell, settings in self.wanted[0].items():
            plan.reference_file(self.cfg, cell, settings).unlink(missing_ok=True)  # all are measured now
        self._measure_generated()
        self._time()

    def _format(self, form: str) -> None:
        """Steps 1 and 2 for one format."""
        texts = {c: s for c, s in self.tables[0].missing(self.wanted[0]).items() if c.format == form}
        unsampled = {c: s for c, s in self._unsampled().items() if c.format == form}
        unwritten = self._unwritten() if form == PLAIN else {}
        if not texts and not unsampled and not unwritten:
            return
        model = self._load(form)
        for path, windows in unwritten.items():
            reference.write(path, model, windows)
        for cell, settings in texts.items():
            self._predict(model, cell, settings)
        if unsampled:
            model = models.for_generating(model, form)
            for group in _groups(unsampled):
                self._sample(model, {cell: unsampled[cell] for cell in group})
        del model
        _free()

    def _load(self, form: str) -> Any:
        self.bar.set_postfix_str(f"{self.subject.label}, {form}")
        return models.load(self.cfg, self.subject.name, form)

    def _unwritten(self) -> dict[Path, Tensor]:
        """The files of log-probabilities that a cell needs and that aren't there, and their windows."""
        needed = self.tables[0].missing(self.wanted[0])
        files = {plan.reference_file(self.cfg, c, s): self.subject.windows[c.text] for c, s in needed.items()}
        return {path: windows for path, windows in files.items() if not path.is_file()}

    def _unsampled(self) -> dict[Sampled, str]:
        """The texts that are neither measured nor on disk, and their settings."""
        found = plan.sampled(self.tables[1].missing(self.wanted[1]))
        return {c: s for c, (s, _) in found.items() if not plan.ids_file(self.cfg, c, s).is_file()}

    def _predict(self, model: Any, cell: Prediction, settings: str) -> None:
        expected = reference.read(plan.reference_file(self.cfg, cell, settings))
        found = prediction.on_text(model, self.subject.windows[cell.text], expected)
        about = {"bits": models.bits(model), "weight_bytes": weight_bytes(model)}
        self.tables[0].append(cell, settings, {**about, **found})
        self.bar.update()

    def _sample(self, model: Any, cells: dict[Sampled, str]) -> None:
        """Generate texts that differ in temperature and top_k alone, some settings at a time."""
        every, first = list(cells), next(iter(cells))
        prompts = self.subject.prompts(first.text).to(model.device)
        step, ends = max(1, self.cfg.rows // len(prompts)), models.end_tokens(model)
        for start in range(0, len(every), step):
            some = every[start : start + step]
            pairs = [(cell.temperature, cell.top_k) for cell in some]
            made = sampling.sample(model, prompts, pairs, first.seed, max(self.cfg.max_new_tokens), ends)
            for cell, ids in zip(some, made, strict=True):
                path = plan.ids_file(self.cfg, cell, cells[cell])
                path.with_suffix(".part").write_text(json.dumps({**cell._asdict(), "ids": ids}))
                path.with_suffix(".part").rename(path)

    def _measure_generated(self) -> None:
        """Step 3."""
        todo = plan.sampled(self.tables[1].missing(self.wanted[1]))
        if not todo:
            return
        model = self._load(PLAIN)
        ends = models.end_tokens(model)
        for text in dict.fromkeys(cell.text for cell in todo):
            judge = generated.Judge(model, self.subject.prompts(text))
            for cell, (settings, cut) in todo.items():
                if cell.text == text:
                    ids = json.loads(plan.ids_file(self.cfg, cell, settings).read_text())["ids"]
                    self._append_measures(judge.nats(ids), ids, cut, settings, ends)
            del judge
        del model
        _free()

    def _append_measures(self, nats: Any, ids: Any, cut: list[Generation], settings: str, ends: Any) -> None:
        for cell in cut:
            pairs = zip(ids, nats, strict=True)
            each = [generated.measures(i, n, cell.max_new_tokens, ends) for i, n in pairs]
            self.tables[1].append(cell, settings, {name: [m[name] for m in each] for name in each[0]})
            self.bar.update()

    def _time(self) -> None:
        """Step 4."""
        todo = self.tables[2].missing(self.wanted[2])
        if not todo:
            return
        plain = self._load(PLAIN)
        for form in dict.fromkeys(cell.format for cell in todo):
            if not self.cfg.device_map:
                plain.to("cpu")
            model = self._load(form)
            swap = not self.cfg.device_map and speed.must_swap(plain, model)
            if not swap and not self.cfg.device_map:
                plain.to(model.device)
            for cell in (cell for cell in todo if cell.format == form):
                prompts = self._repeated(cell.batch)
                found = speed.in_turns(plain, model, prompts, self.cfg.decode_tokens, self.cfg.rounds, swap)
                self.tables[2].append(cell, todo[cell], dict(found))
                self.bar.update()
            del model
            _free()
        del plain
        _free()

    def _repeated(self, batch: int) -> Tensor:
        """Prompts (batch, prompt): those of the first text, again and again."""
        prompts = self.subject.prompts(self.cfg.texts[0])
        return prompts[torch.arange(batch) % len(prompts)]


def _groups(cells: dict[Sampled, str]) -> list[list[Sampled]]:
    """The cells that share a text and a seed."""
    found: dict[tuple[str, int], list[Sampled]] = {}
    for cell in cells:
        found.setdefault((cell.text, cell.seed), []).append(cell)
    return list(found.values())


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
