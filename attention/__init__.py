"""Attention: the seam that every attention module calls, plans, documents, and kernels."""

from cadenza.attention import seam as seam  # registers the seam
from cadenza.attention.modules import attention_modules
from cadenza.attention.opening import open_seam
from cadenza.attention.plan import AttentionPlan, BatchPlan, claim

__all__ = ["AttentionPlan", "BatchPlan", "attention_modules", "claim", "open_seam"]
