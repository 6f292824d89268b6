"""The specification: every op in plain PyTorch, on any device, written to be read."""
