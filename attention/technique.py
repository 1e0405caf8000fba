"""The base class of techniques that use the attention seam."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from cadenza.attention.opening import open_seam
from cadenza.attention.plan import plan_of
from cadenza.attention.proof.subject import Claim, prove
from cadenza.options import option
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.report import Report
from cadenza.surgery.retype import Stage, Undo


@dataclass(repr=False, eq=False, kw_only=True)
class AttentionSurgery(Surgery):
    """Opens the attention seam before its edits, which claim fields of the plans."""

    stage = Stage.ATTENTION
    claims: ClassVar[tuple[Claim, ...]] = ()  # what a model of no tested family has to prove
    prove: bool = option(
        True,
        "Whether a model of no tested family has to prove that the technique is right on it, by a few short "
        "calls (`cadenza.attention.proof`).",
        repr=False,
    )

    def prepare(self, model: nn.Module) -> Iterator[Undo]:
        yield from open_seam(model)

    def finish(self, report: Report, survey: Any) -> Iterator[Undo]:
        if self.prove and report.changes:
            prove(report.model, *self.claims)
        return iter(())

    def describe(self, site: Site) -> str:
        plan = plan_of(site.module)
        claims = ", ".join(plan.claims()) if plan else ""
        return super().describe(site) + (f" [{claims}]" if claims else "")
