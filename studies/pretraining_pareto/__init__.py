"""Loss and score of several pretraining runs against hours, tokens and floating-point operations."""
