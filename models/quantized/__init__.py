"""Quantized models for other code: bitsandbytes' layout in folders, adapters merged into weights."""
