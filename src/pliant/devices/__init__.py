"""Devices that we own and measure: latency by ONNX Runtime, tables of it by block, and the profile that keeps them."""
