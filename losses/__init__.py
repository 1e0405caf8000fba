"""Losses that need no memory beyond the logits, or not even the logits."""
