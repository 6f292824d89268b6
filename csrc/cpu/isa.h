// The check that kernels are compiled for a named instruction set.
//
// Kernels in .inl files are compiled once for each instruction set, in namespace AF_ISA: an isa_*.cpp defines
// AF_ISA as baseline, avx2 or avx512 and AF_VECTOR_BYTES as the length of its vectors (the compiler's own
// macros do not follow the target that a pragma sets), sets the compiler's target, and includes kernels.inl.
// Every .inl includes this file.
#pragma once

#if !defined(AF_ISA) || !defined(AF_VECTOR_BYTES)
#error \
    "AF_ISA and AF_VECTOR_BYTES must be defined: this file is compiled through kernels.inl by each isa_*.cpp"
#endif
