"""The base class of techniques that use the attention seam."""

from collections.abc import Iterator

from torch import nn

from cadenza.attention.plan import plan_of
from cadenza.attention.seam import open_seam
from cadenza.surgery.engine import Site, Surgery
from cadenza.surgery.retype import Stage, Undo


class AttentionSurgery(Surgery):
    """Opens the attention seam before its edits, which claim fields of the plans."""

    stage = Stage.ATTENTION

    def prepare(self, model: nn.Module) -> Iterator[Undo]:
        yield from open_seam(model)

    def describe(self, site: Site) -> str:
        plan = plan_of(site.module)
        claims = ", ".join(plan.claims()) if plan else ""
        return super().describe(site) + (f" [{claims}]" if claims else "")
