"""What becomes of freed memory."""

import ctypes
import platform

# mallopt's, of glibc: blocks of at least MMAP_THRESHOLD bytes come from the system and go back to it when they are
# freed; the end of the heap goes back when more than TRIM_THRESHOLD bytes of it are free.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
BYTES = 2**30


def keep_freed_memory() -> bool:
    """Makes this process keep what it frees, up to a gigabyte a block; False where that cannot be asked for.

    An encoder frees and takes tens of megabytes a layer. Given back and taken again, every page costs a fault: on
    a virtual machine that takes longer than the convolution that fills it.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, BYTES) and mallopt(TRIM_THRESHOLD, BYTES))
