"""A trained policy as a folder that stands by itself: programs, contract, C header, ONNX; and what runs it."""
