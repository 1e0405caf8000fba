"""Techniques of encoders after MosaicBERT: positions, norms and biases as in ModernBERT and NeoBERT."""
