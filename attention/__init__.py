"""Attention: the seam that every attention module calls, plans, documents, and kernels."""

from cadenza.attention.plan import AttentionPlan, BatchPlan, claim
from cadenza.attention.seam import attention_modules, open_seam

__all__ = ["AttentionPlan", "BatchPlan", "attention_modules", "claim", "open_seam"]
