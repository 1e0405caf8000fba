"""Keeps freed memory for the next batch, where the C library is glibc."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what the process frees; whether it does so.

    By default glibc returns large tensors to the kernel, whose pages are then faulted in again for each
    batch. The cost: the process holds the most that it ever needed until it ends.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(MMAP_THRESHOLD, 2**30) and libc.mallopt(TRIM_THRESHOLD, 2**31 - 1))
