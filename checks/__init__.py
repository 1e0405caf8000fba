"""Checks that any Hugging Face model or trainer can be put through, with surgery or without."""

from cadenza.algorithms.long_context.bf16_safe_rope import check_rope
from cadenza.checks.documents import check_documents
from cadenza.checks.findings import CheckFailed, Finding, NotCheckable, Passed
from cadenza.checks.padding import check_padding
from cadenza.checks.resume import check_resume
from cadenza.checks.trainers import PlainTrainer

__all__ = [
    "CheckFailed",
    "Finding",
    "NotCheckable",
    "Passed",
    "PlainTrainer",
    "check_documents",
    "check_padding",
    "check_resume",
    "check_rope",
]
