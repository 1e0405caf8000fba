"""Layers in few bits: quantizers, formats of stored weights, calibration, and which layers are eligible."""
