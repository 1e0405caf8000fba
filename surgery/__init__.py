"""The surgery engine: changes a model in place, records the changes, saves the record, and undoes them."""

from cadenza.surgery.engine import Site, Surgery, in_order, sites
from cadenza.surgery.errors import CheckpointError, Conflict, NoEffect, OrderError, SurgeryError
from cadenza.surgery.ledger import history, ledger
from cadenza.surgery.report import Change, Report
from cadenza.surgery.retype import Mixin, Stage, mix, stock_class

__all__ = [
    "Change",
    "CheckpointError",
    "Conflict",
    "Mixin",
    "NoEffect",
    "OrderError",
    "Report",
    "Site",
    "Stage",
    "Surgery",
    "SurgeryError",
    "history",
    "in_order",
    "ledger",
    "mix",
    "sites",
    "stock_class",
]
