"""A compiled CUDA kernel: the resources it takes, and how much of a multiprocessor it can fill."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Threads, blocks and shared memory that one multiprocessor holds at a time."""

    threads: int
    blocks: int
    shared_kib: int


# sm_ -> limits; all of these have 65536 registers in four parts, and keep 1 KiB of shared memory for each block.
LIMITS = {
    80: Limits(2048, 32, 164),
    86: Limits(1536, 16, 100),
    89: Limits(1536, 24, 100),
    90: Limits(2048, 32, 228),
    120: Limits(1536, 24, 100),
}
RESERVED_SHARED = 1024

# Part of a kernel's name -> the most bytes of shared memory that its launches ask for in usual calls.
LAUNCH_SHARED = {
    "_staged_kernel": 24 * 1024,
    "_frames_tiled_kernel": 32 * 1024 + 256,
    "_conv3d_tiled_kernel": 27 * 2 * 128,  # weights of 3 x 3 x 3 taps, in float32 of 128 bytes of float16
}


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture."""

    name: str  # demangled, without namespace and parameters
    arch: int  # 86 for sm_86
    threads: int | None  # largest block that it may be launched with; None: it has no launch bounds
    registers: int
    stack: int  # bytes of a thread's stack frame
    local: int  # instructions that access local memory: spills, and arrays indexed at run time
    shared: int  # bytes, beside those that a launch asks for
    instructions: int
    accesses: dict[str, dict[int, int]]  # "load", ... -> bytes a thread -> instructions

    @property
    def launch_shared(self) -> int:
        """The most bytes of shared memory that a launch asks for."""
        return next((size for part, size in LAUNCH_SHARED.items() if part in self.name), 0)

    @property
    def occupancy(self) -> float | None:
        """The share of a multiprocessor's threads that can be resident, at the largest block."""
        if self.threads is None or self.arch not in LIMITS:
            return None
        return occupancy(LIMITS[self.arch], self.threads, self.registers, self.shared + self.launch_shared)

    def widest(self, access: str) -> int:
        """Bytes of the widest accesses of a kind; 0 if there are none."""
        return max(self.accesses.get(access, {}), default=0)


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> float:
    """The share of a multiprocessor's threads that blocks of this many can fill."""
    warps = -(-threads // 32)
    registers_of_warp = _round_up(32 * registers, 256)
    blocks = min(
        limits.blocks,
        limits.threads // (32 * warps),
        4 * (65536 // 4 // registers_of_warp) // warps,
        limits.shared_kib * 1024 // _round_up(shared + RESERVED_SHARED, 128),
    )
    return blocks * 32 * warps / limits.threads


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
