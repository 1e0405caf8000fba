"""What techniques have in common that work through the attention seam."""

from torch import nn

from cadenza.surgery.attention import open_seam
from cadenza.surgery.engine import Surgery
from cadenza.surgery.ledger import Stage
from cadenza.surgery.retype import Undo


class AttentionSurgery(Surgery):
    """Leads the model's attention through the seam first; `edit` then claims a part of each plan."""

    stage = Stage.ATTENTION

    def prepare(self, model: nn.Module) -> Undo:
        return open_seam(model)
