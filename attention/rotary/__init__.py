"""Exact rotary positions: their tables, where they enter a stock model, and the proof that they fit it."""
