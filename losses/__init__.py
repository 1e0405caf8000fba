"""Losses that need no memory beyond the logits."""
