"""Networks: plain and elastic blocks, supernets, and their ONNX form."""
