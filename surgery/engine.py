"""The surgery engine: a technique defines what it edits and how; the engine does everything else.

`Surgery` is a Composer `Algorithm` that runs on `Event.INIT`, before Composer wraps the model for DDP or
FSDP. It also works without a Trainer: `ALiBi().operate(model, optimizers)`.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from composer.algorithms.warnings import NoEffectWarning
from composer.core import Algorithm, Event, State
from composer.loggers import Logger
from torch import nn
from transformers import PreTrainedModel

from cadenza.options import check, option
from cadenza.surgery.errors import Conflict, NoEffect, OrderError, SurgeryError
from cadenza.surgery.ledger import Entry, enter, ledger, quantized_within
from cadenza.surgery.optimizers import Optimizers, as_tuple
from cadenza.surgery.optimizers.left_out import refuse_left_out, watch
from cadenza.surgery.parameters import own_configs
from cadenza.surgery.report import Change, Report, describe
from cadenza.surgery.resume import guard
from cadenza.surgery.retype import Stage, Undo
from cadenza.surgery.saving import start_saving
from cadenza.surgery.undos import Undos, refuse_wrapped

GIVE = "pass an optimizer that was made before as optimizers="


@dataclass(frozen=True)
class Site:
    """A module of the model that is operated on.

    Args:
        path: the module's name in the model.
        module: the module.
        host: the outermost Hugging Face model that contains it, or that it is; None if there is none.
        survey: the result of the surgery's `survey`.
    """

    path: str
    module: nn.Module
    host: PreTrainedModel | None
    survey: Any = None


@dataclass(repr=False, eq=False, kw_only=True)
class Surgery(Algorithm):
    """One technique. Its dataclass fields are its only options.

    `operate` calls these hooks in this order. Edits are generators: they change something in place, then
    yield the undo of that change. If a hook raises, all undos run, the last one first.

    1. `survey(model)` returns facts about the whole model and changes nothing. Each `Site` holds the result.
    2. `prepare(model)` makes the edits that come once, before all others.
    3. `edit(site)` edits one module; it is called for each module of the model. Required.
    4. `finish(report, survey)` makes the edits that come once, after all others, and completes the report. It
       raises if the edits are incomplete.

    Other hooks: `describe(site)` is the report's text for a module; `irreversible()` is the reason why the
    surgery can't be undone; `stock_config(fields)`, `excluding(paths)` and `loaded(model)` serve the loading
    of saved models.
    """

    stage: ClassVar[Stage]
    keeps_outputs: ClassVar[bool] = False  # whether stock code computes the same from the weights
    strict: bool = option(
        True,
        "Whether a technique that finds nothing to change in a Trainer is an error, or a warning. The "
        "functional forms always raise.",
        repr=False,
    )
    report = None  # type: Report | None  # that of the last Trainer

    def __post_init__(self) -> None:
        """Raise `SurgeryError` for an option whose value doesn't fit what its field declares."""
        check(self, f"{type(self).__module__.rpartition('.')[2]} ", SurgeryError)

    def survey(self, model: nn.Module) -> Any:
        """Facts about `model` for the later hooks."""

    def prepare(self, model: nn.Module) -> Iterator[Undo]:
        """Edits before all others."""
        return iter(())

    def edit(self, site: Site) -> Iterator[Undo]:
        """The edits of `site.module`; none if the surgery doesn't concern it."""
        raise NotImplementedError

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        """Edits after all others; raises if the edits are incomplete."""
        return iter(())

    def describe(self, site: Site) -> str:
        """The report's text for a module; called before and after its edit."""
        return describe(site.module)

    def irreversible(self) -> str:
        """Why the surgery can't be undone; empty if it can."""
        return ""

    @staticmethod
    def stock_config(fields: dict[str, Any]) -> dict[str, Any]:
        """The config of the stock model, computed from the config `fields` of a model after this surgery."""
        return fields

    def excluding(self, paths: list[str]) -> "Surgery":
        """This surgery, but without edits of the layers at `paths`."""
        return self

    def loaded(self, model: nn.Module) -> None:
        """Called after buffers of `model` were filled without `load_state_dict`."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that determine the result, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.repr}

    @property
    def entry(self) -> Entry:
        """This surgery as an entry of a ledger."""
        return Entry(self.stage, type(self).__name__, self.options, self.keeps_outputs)

    def operate(self, model: nn.Module, optimizers: Optimizers = None) -> Report:
        """Change `model` in place and give new parameters to `optimizers`; all or nothing.

        Raises:
            NoEffect: nothing matched.
            Conflict: the technique was applied before with other options.
            OrderError: it comes after a surgery that it must precede.
            SurgeryError: the model is wrapped, sharded or hooked, or the surgery can't be done as asked.
        """
        refuse_wrapped(model, "operate")
        report = Report(self.entry, Undos(model, as_tuple(optimizers)))
        report.undos.run(self._steps(model, report))
        if (made := report.undos.made) and not report.undos.optimizers:
            report.notes.append(f"{len(made)} new parameters ({GIVE})")
            watch(report.surgery, report.undos.taken, made)
        if why := self.irreversible():
            report.irreversible = why
            report.undos.forget()
        return report

    def _steps(self, model: nn.Module, report: Report) -> Iterator[Undo]:
        survey = self.survey(model)
        own_configs(model)
        yield from start_saving(model)
        yield from self.prepare(model)
        for site in list(sites(model, survey)):
            yield from self._edit(site, report)
        yield from self.finish(report, survey)
        if not report.changes and not report.already:
            hosts = {type(site.host).__name__ for site in sites(model) if site.host is not None}
            names = ", ".join(sorted(hosts)) or type(model).__name__
            raise NoEffect(f"{self!r} found nothing to change in {names}{report.first_skipped()}")

    def _edit(self, site: Site, report: Report) -> Iterator[Undo]:
        if (earlier := ledger(site.module).get(report.entry.name)) is not None:
            if earlier.options != report.entry.options:
                raise Conflict(f"{site.path}: {earlier} is in place; undo it before {self!r}")
            report.already += 1
            return
        before, edited = self.describe(site), False
        try:
            for undo in self.edit(site):
                edited = True
                yield undo
        except NoEffect:
            raise
        except SurgeryError as error:
            self._refuse_quantized(site, error)
            raise
        if not edited:
            return
        self._refuse_quantized(site)
        yield enter(site.module, report.entry)
        report.changes.append(Change(site.path, before, self.describe(site)))

    def _refuse_quantized(self, site: Site, cause: Exception | None = None) -> None:
        """Raise if a surgery of structure finds quantized weights, which can't be reshaped or replaced."""
        if self.stage == Stage.STRUCTURE and (found := quantized_within(site.module, site.path)):
            raise OrderError(f"{found} is in place; apply {self!r} before it") from cause

    def __repr__(self) -> str:
        return str(self.entry)

    @staticmethod
    def required_on_load() -> bool:
        return True  # Composer then creates it anew if a resume leaves it out

    def match(self, event: Event, state: State) -> bool:
        return event == Event.INIT

    def apply(self, event: Event, state: State, logger: Logger) -> None:
        guard(state, Surgery)
        for each in in_order(state.algorithms):  # Composer adds those that a resume left out in any order
            if isinstance(each, Surgery) and each.stage < self.stage:
                each._operate_once(state, logger)
        self._operate_once(state, logger)
        refuse_left_out(state.model, state.optimizers)

    def _operate_once(self, state: State, logger: Logger) -> None:
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
    """Surgeries sorted by stage, then other algorithms as listed.

    It is a Composer algorithm pass: `Trainer(algorithm_passes=[in_order])`.
    """
    last = len(Stage) + 1
    return sorted(algorithms, key=lambda a: a.stage if isinstance(a, Surgery) else last)


def sites(model: nn.Module, survey: Any = None) -> Iterator[Site]:
    """Each module of `model` once, the root included."""
    hosts: dict[str, PreTrainedModel | None] = {}
    for path, module in model.named_modules():
        host = hosts.get(path.rpartition(".")[0]) if path else None
        if host is None and isinstance(module, PreTrainedModel):
            host = module
        hosts[path] = host
        yield Site(path, module, host, survey)
