// The CPU kernels for what every processor of the target architecture has.
#define AF_ISA baseline
#define AF_VECTOR_BYTES 16
#include "cpu/kernels.inl"
