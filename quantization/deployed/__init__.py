"""Networks of trained integers for other runtimes: ONNX graphs with QuantizeLinear and DequantizeLinear."""
