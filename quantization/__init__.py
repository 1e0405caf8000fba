"""Layers in few bits: quantizers, formats of stored weights, calibration, and files for other runtimes."""

from cadenza.quantization.deployed.export import Exported, export_onnx

__all__ = ["Exported", "export_onnx"]
