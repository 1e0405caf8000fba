"""Fused operators on CUDA, written in Triton, of techniques that aren't attention."""
