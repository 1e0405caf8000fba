"""The surgery engine: a technique says what it edits and how; the engine does everything else.

`Surgery` is a Composer `Algorithm` that plays on `Event.INIT`, before Composer wraps the model for
DDP or FSDP. The same object works alone: `ALiBi().operate(model, optimizers)`.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, ClassVar

from composer.algorithms.warnings import NoEffectWarning
from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from cadenza.surgery.errors import Conflict, NoEffect, OrderError, SurgeryError
from cadenza.surgery.ledger import Entry, Stage, enter, ledger
from cadenza.surgery.optimizers import as_tuple, named_parameters, sync
from cadenza.surgery.report import Change, Report, describe
from cadenza.surgery.resume import guard
from cadenza.surgery.retype import Undo
from cadenza.surgery.saving import start_saving, stop_saving


@dataclass(frozen=True)
class Site:
    """A module as a surgery meets it: its path, and the Hugging Face model that it belongs to."""

    path: str
    module: nn.Module
    host: PreTrainedModel | None


@dataclass(repr=False, eq=False, kw_only=True)
class Surgery(Algorithm):
    """One technique. Its dataclass fields are its only options; subclasses define `edit`.

    Args:
        strict: in a Trainer, whether a surgery that finds nothing to change is an error (the default)
            or a `NoEffectWarning`. The functional forms always raise.
    """

    stage: ClassVar[Stage]
    keeps_outputs: ClassVar[bool] = False  # whether the stock model computes the same from the weights
    strict: bool = field(default=True, repr=False)
    report = None  # type: Report | None  # of the last Trainer that it was played in

    def edit(self, site: Site) -> Undo | None:
        """Change `site.module` in place and return the way back; None where there's nothing to do."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> Undo | None:
        """What has to be done once, before the first edit."""

    def check(self, model: nn.Module, report: Report) -> None:
        """Raise if what was edited doesn't make a whole; everything is then undone."""

    @staticmethod
    def stock_config(fields: dict[str, Any]) -> dict[str, Any]:
        """The config of the stock model, from that of a model after this surgery, both as mappings."""
        return fields

    @staticmethod
    def required_on_load() -> bool:
        return True  # Composer then creates it anew where a resume leaves it out

    def sparing(self, paths: list[str]) -> "Surgery":
        """This surgery for a model with other layers at `paths`, which it is not to touch."""
        return self

    def loaded(self, model: nn.Module) -> None:
        """Take note of what was put into the buffers of `model` by other means than `load_state_dict`."""

    def describe(self, site: Site) -> str:
        """The words of the report for a site, before and after."""
        return describe(site.module)

    def operate(self, model: nn.Module, optimizers: Optimizer | Sequence[Optimizer] | None = None) -> Report:
        """Change `model` in place; all or nothing.

        Raises:
            NoEffect: nothing matched.
            Conflict: the technique was applied before with other options.
            OrderError: it comes after a surgery that it must precede.
        """
        _refuse_wrapped(model)
        report = Report(repr(self), model, as_tuple(optimizers))
        before = named_parameters(model)
        try:
            self._edit_all(model, report)
            self.check(model, report)
            if not report.changes and not report.already:
                raise NoEffect(f"{self!r} found nothing to change in {_class_names(model)}{report.excuses()}")
            report._memory = sync(report.optimizers, before, named_parameters(model), {})
        except BaseException:
            report._take_back()
            raise
        report._check_undo = partial(self._refuse_undo, model, report)
        return report

    def _edit_all(self, model: nn.Module, report: Report) -> None:
        report._undos.append(partial(stop_saving, model))
        start_saving(model)
        prepared = self.prepare(model)
        if prepared is not None:
            report._undos.append(prepared)
        for site in list(sites(model)):
            if self._done(site):
                report.already += 1
            else:
                self._edit_one(site, report)

    def _done(self, site: Site) -> bool:
        earlier = ledger(site.module).get(type(self).__name__)
        if earlier is None or earlier.surgery == repr(self):
            return earlier is not None
        raise Conflict(f"{site.path}: {earlier.surgery} is in place; undo it before {self!r}")

    def _edit_one(self, site: Site, report: Report) -> None:
        before = self.describe(site)
        undo = self.edit(site)
        if undo is None:
            return
        report._undos.append(undo)
        self._refuse_late(site)
        entry = Entry(self.stage, repr(self), self.keeps_outputs)
        report._undos.append(enter(site.module, type(self).__name__, entry))
        report.changes.append(Change(site.path, before, self.describe(site)))

    def _refuse_late(self, site: Site) -> None:
        """Quantized weights can't be reshaped or drawn anew; what leaves them alone may come later."""
        if found := self._quantized(site.module, site.path):
            raise OrderError(f"{found} is in place; apply {self!r} before it")

    def _refuse_undo(self, model: nn.Module, report: Report) -> None:
        for change in report.changes:
            if found := self._quantized(model.get_submodule(change.path), change.path):
                raise OrderError(f"{found} is in place; undo it before {self!r}")

    def _quantized(self, module: nn.Module, path: str) -> str | None:
        """Where a surgery that works on parameters meets a quantized layer, and which one that is."""
        if self.stage != Stage.STRUCTURE:
            return None
        entries = ((p, e) for p, m in module.named_modules(prefix=path) for e in ledger(m).values())
        return next((f"{p}: {e.surgery}" for p, e in entries if e.stage == Stage.QUANTIZE), None)

    def __repr__(self) -> str:
        shown = (f.name for f in fields(self) if f.repr)
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({options})"

    def match(self, event: Event, state: State) -> bool:
        return event == Event.INIT

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        guard(state)
        for each in in_order(state.algorithms):  # Composer adds those that a resume left out in no order
            if isinstance(each, Surgery) and each.stage < self.stage:
                each._play(state, logger)
        self._play(state, logger)

    def _play(self, state: State, logger: Logger) -> None:
        if self.report is not None and self.report.model is state.model:
            return
        try:
            report = self.operate(state.model, state.optimizers)
        except NoEffect as error:
            if self.strict:
                raise
            warnings.warn(NoEffectWarning(str(error)), stacklevel=2)
            return
        self.report = report
        logger.log_hyperparameters({f"{type(self).__name__}/modules": len(report) + report.already})


def in_order(algorithms: Iterable[Algorithm], event: Event | None = None) -> list[Algorithm]:
    """The canonical order: surgeries by stage, other algorithms after them as listed.

    Also a Composer algorithm pass: `Trainer(algorithm_passes=[in_order])`.
    """
    last = len(Stage) + 1
    return sorted(algorithms, key=lambda a: a.stage if isinstance(a, Surgery) else last)


def sites(model: nn.Module) -> Iterator[Site]:
    """Every module of `model` once, root included, with its outermost Hugging Face model."""
    hosts: dict[str, PreTrainedModel] = {}
    for path, module in model.named_modules():
        parent = path.rpartition(".")[0]
        host = hosts.get(parent) if path else None
        if host is None and isinstance(module, PreTrainedModel):
            host = module
        if host is not None:
            hosts[path] = host
        yield Site(path, module, host)


def _refuse_wrapped(model: nn.Module) -> None:
    name = type(model).__name__
    if name in (
        "DistributedDataParallel",
        "FullyShardedDataParallel",
        "OptimizedModule",
        "DataParallel",
    ):
        raise SurgeryError(f"operate on the model before it is wrapped in {name}, not after")


def _class_names(model: nn.Module) -> str:
    hosts = {type(s.host).__name__ for s in sites(model) if s.host is not None}
    return ", ".join(sorted(hosts)) or type(model).__name__
