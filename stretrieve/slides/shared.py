"""Memory that the user's process and a reader process both see; pixels cross over in it."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

BLOCK_BYTES: Final = 16 << 20
"""Pixels of one request, where a single region does not need more."""


class SharedBlock:
    """A block of memory behind a file descriptor, seen alike by every process that has it.

    Parameters
    ----------
    descriptor
        A file that only processes of ours hold.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.pixels = mmap.mmap(-1, 1)
        self._n_bytes = 0

    @classmethod
    def create(cls) -> SharedBlock:
        """Return an empty block in a file without a name, which vanishes with its last process.

        Raises
        ------
        OSError
            When there is no such file to be had.
        """
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("stretrieve-pixels"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def resize(self, n_bytes: int) -> int:
        """Make room for ``n_bytes`` and give back what an earlier large request took.

        Returns
        -------
        int
            Size of the block, for the other side to :meth:`follow`.

        Raises
        ------
        OSError
            When there is not enough memory.
        """
        n_bytes = max(n_bytes, BLOCK_BYTES)
        if n_bytes != self._n_bytes:
            os.ftruncate(self.descriptor, n_bytes)
            self.follow(n_bytes)
        return n_bytes

    def follow(self, n_bytes: int) -> None:
        """See the block at the size that the other side gave it."""
        if n_bytes != self._n_bytes:
            self.pixels.close()
            self.pixels = mmap.mmap(self.descriptor, n_bytes)
            self._n_bytes = n_bytes

    def close(self) -> None:
        """Release memory and descriptor; closing twice does nothing."""
        self.pixels.close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
