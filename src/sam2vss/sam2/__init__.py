"""The SAM 2 engine: transformers' modules and weights, driven by our own code."""
