// The CPU kernels for what every processor of the target architecture has.
#define AF_ISA baseline
#include "cpu/kernels.inl"
