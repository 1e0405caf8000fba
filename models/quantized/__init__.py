"""Quantized models that other code reads: bitsandbytes' layout in folders, and adapters merged into weights."""
