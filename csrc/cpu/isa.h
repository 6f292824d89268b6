// The check that kernels are compiled for a named instruction set.
//
// Kernels in .inl files are compiled once for each instruction set, in namespace AF_ISA: an isa_*.cpp defines
// AF_ISA as baseline, avx2 or avx512, sets the compiler's target, and includes kernels.inl. Every .inl
// includes this file.
#pragma once

#ifndef AF_ISA
#error "AF_ISA must be defined: this file is compiled through kernels.inl by each isa_*.cpp"
#endif
