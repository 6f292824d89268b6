"""Triton kernels, for GPUs without compiled ones; their modules are imported when they are first used."""
