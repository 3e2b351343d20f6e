"""Memory in pages of 2 MiB, so that a training step spends less time on finding where it lies (Linux, glibc).

A step walks through hundreds of MiB of activations. In pages of 4 KiB the processor's table of recent pages (TLB)
covers little of it, and on a virtual machine each miss costs two walks: 4% of a bf16 step of 10.6M parameters, a
third of an addition. Most systems give huge pages to whoever asks, by madvise(2). The C library can ask, but only
if told so in the environment before the program starts (glibc.malloc.hugetlb); here the program tells for itself.
Only addresses are reserved: memory is taken when it is used, as ever.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
MADV_HUGEPAGE = 14  # of sys/mman.h
CHUNK = 2**29  # below the largest block that the C library still takes from its heap
HUGE = 2**21
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@functools.cache
def use(reserve: int | None = None) -> bool:
    """Let what the main thread allocates from now on lie in huge pages; say whether the system agreed.

    reserve: bytes of addresses, half of the machine's memory where not given; beyond them pages are as before.
    Call it before the model is made; the process does it once.
    """
    if not _offered():
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    # Blocks come from the heap, and it never shrinks: so what is allocated next is what is advised here.
    if not (libc.mallopt(M_MMAP_THRESHOLD, 2 * CHUNK) and libc.mallopt(M_TRIM_THRESHOLD, -1)):
        return False
    reserve = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if reserve is None else reserve
    blocks = [libc.malloc(CHUNK) for _ in range(max(1, reserve // CHUNK))]
    for block in reversed(blocks):
        libc.free(block)
    heap = _heap()
    if heap is None:
        return False
    start = -(-heap[0] // HUGE) * HUGE
    return bool(heap[1] > start and libc.madvise(start, heap[1] - start, MADV_HUGEPAGE) == 0)


def _offered() -> bool:
    """Whether this is glibc's allocator on a system that gives huge pages to programs that ask."""
    try:
        return hasattr(ctypes.CDLL(None), "gnu_get_libc_version") and "[never]" not in SETTING.read_text("ascii")
    except (OSError, AttributeError, UnicodeDecodeError):
        return False


def _heap() -> tuple[int, int] | None:
    """Return first and last address of the process's heap."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.endswith("[heap]"):
            start, end = line.split()[0].split("-")
            return int(start, 16), int(end, 16)
    return None
