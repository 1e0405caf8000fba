"""Layers that train with quantized weights and inputs, and their integers."""
