"""What techniques are written with: the engine, the attention seam, and the tools they share."""

from cadenza.surgery.attention import Plan, attention_modules, claim, open_seam
from cadenza.surgery.engine import Site, Surgery, in_order, sites
from cadenza.surgery.errors import CheckpointError, Conflict, NoEffect, OrderError, SurgeryError
from cadenza.surgery.history import history
from cadenza.surgery.ledger import Stage, ledger
from cadenza.surgery.report import Change, Report
from cadenza.surgery.retype import mix, stock_class

__all__ = [
    "Change",
    "CheckpointError",
    "Conflict",
    "NoEffect",
    "OrderError",
    "Plan",
    "Report",
    "Site",
    "Stage",
    "Surgery",
    "SurgeryError",
    "attention_modules",
    "claim",
    "history",
    "in_order",
    "ledger",
    "mix",
    "open_seam",
    "sites",
    "stock_class",
]
