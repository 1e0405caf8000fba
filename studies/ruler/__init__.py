"""RULER's 13 tasks of long context, over several models, lengths and checkpoints."""
