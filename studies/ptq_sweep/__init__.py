"""Quantized models against the unquantized ones: prediction, generation and speed, after arXiv 2309.05210."""
