"""HDF5 files that nobody vouches for: walked before a value is read.

HDF5 can point at other files (external storage, external links, virtual datasets), ask for filter
plug-ins, declare arrays far larger than the file, and link in circles. A plain reader follows all of
that. Here a file that does any of it is refused before anything else happens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stretrieve.errors import InputNotFoundError, SectionError, StretrieveError, explain

MAX_TOTAL_BYTES: Final = 64 << 30
MAX_READ_BYTES: Final = 16 << 30
_MAX_OBJECTS: Final = 100_000
_MAX_DEPTH: Final = 32
_MAX_CHUNK: Final = 1 << 30
_MAX_RATIO: Final = 1200
_RATIO_FROM: Final = 64 << 20
_KNOWN_FILTERS: Final = {1, 2, 3, 4, 5, 6, 32000}  # deflate shuffle fletcher32 szip nbit scale lzf

HOSTILE_ERRORS: Final = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    RuntimeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    ArithmeticError,
    AssertionError,
    EOFError,
    LookupError,
    SystemError,
)
"""What the HDF5 stack raises on damaged files."""


@contextlib.contextmanager
def open_checked(path: Path) -> Iterator[Any]:
    """Open an HDF5 file read-only after a walk over all it holds.

    Parameters
    ----------
    path
        The file.

    Yields
    ------
    h5py.File
        The open file. Whatever the block raises on damaged content becomes a ``SectionError``.

    Raises
    ------
    InputNotFoundError
        When there is no such file.
    SectionError
        When it is not HDF5, is damaged, reaches outside itself or declares too much.
    """
    import h5py

    if not path.is_file():
        raise InputNotFoundError(explain("file", got=f"no file {path}"))
    try:
        with h5py.File(path, "r") as file:
            _Walk(path, path.stat().st_size).group(file, depth=0)
            yield file
    except StretrieveError:
        raise
    except HOSTILE_ERRORS as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: BaseException) -> SectionError:
    """Return the one-line error for a file on which its library gave up."""
    text = str(error).strip("'\"") or type(error).__name__
    return SectionError(explain(path.name, got=text[:160], expected="an intact file"))


class _Walk:
    """One pass over every link of a file."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        self._path = path
        self._limit = MAX_TOTAL_BYTES
        self._file_bytes = file_bytes
        self._total = 0
        self._objects = 0
        self._open: set[int] = set()
        self._seen: set[int] = set()

    def group(self, group: Any, *, depth: int) -> None:
        """Check everything below a group."""
        import h5py

        address = h5py.h5o.get_info(group.id).addr
        if depth > _MAX_DEPTH or address in self._open:
            raise self._refuse(group.name, "groups nested in a circle or too deep")
        if address in self._seen:
            return
        self._seen.add(address)
        self._open.add(address)
        for name in group:
            self._objects += 1
            if self._objects > _MAX_OBJECTS:
                raise self._refuse(group.name, f"over {_MAX_OBJECTS} objects")
            self._link(group, name, depth)
        self._open.discard(address)

    def _link(self, group: Any, name: str, depth: int) -> None:
        import h5py

        if name in {".", ".."} or "\\" in name or "\0" in name:
            raise self._refuse(f"{group.name}/{name}", "a path as a name")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise self._refuse(f"{group.name}/{name}", "a link to elsewhere")
        item = group[name]
        if isinstance(item, h5py.Group):
            self.group(item, depth=depth + 1)
        elif isinstance(item, h5py.Dataset):
            self._dataset(item)

    def _dataset(self, dataset: Any) -> None:
        if dataset.external:
            raise self._refuse(dataset.name, "values stored in another file")
        if dataset.is_virtual:
            raise self._refuse(dataset.name, "a virtual dataset")
        plist = dataset.id.get_create_plist()
        filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
        if filters - _KNOWN_FILTERS:
            raise self._refuse(dataset.name, f"unknown compression {min(filters - _KNOWN_FILTERS)}")
        self._size(dataset)

    def _size(self, dataset: Any) -> None:
        size = _product(dataset.shape or ()) * dataset.dtype.itemsize
        if dataset.chunks and _product(dataset.chunks) * dataset.dtype.itemsize > _MAX_CHUNK:
            raise self._refuse(dataset.name, "a chunk of over 1 GiB")
        self._total += size
        stored = max(int(dataset.id.get_storage_size()), 1)
        if self._total > self._limit or (
            size > _RATIO_FROM and size > _MAX_RATIO * min(stored, self._file_bytes)
        ):
            raise self._refuse(
                dataset.name, f"{size / 2**30:.1f} GiB declared, {stored} bytes stored"
            )

    def _refuse(self, where: str, what: str) -> SectionError:
        return SectionError(
            explain(f"{self._path.name}, {str(where)[:80]!r}", got=what, expected="plain arrays")
        )


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= int(size)
    return total


def load(element: Any) -> npt.NDArray[Any]:
    """Return all values of an array of HDF5 or zarr.

    Raises
    ------
    ValueError
        When it is a group, or larger than any section needs.
    """
    if not hasattr(element, "shape"):
        raise ValueError(f"{element.name} is a group, not an array")
    if _product(element.shape) * element.dtype.itemsize > MAX_READ_BYTES:
        raise ValueError(f"{element.name} has {element.shape} values")
    return np.asarray(element[()])


def read_text(dataset: Any) -> list[str]:
    """Return a one-dimensional dataset of strings, fixed or variable in length.

    Raises
    ------
    ValueError
        When it is not a list of UTF-8 strings.
    """
    values = load(dataset)
    if values.ndim != 1 or values.dtype.kind not in "SO":
        raise ValueError(f"{dataset.name} is not a list of names")
    if values.dtype.kind == "S":
        return [bytes(value).decode("utf-8") for value in values]
    return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values]


def read_attribute_text(item: Any, name: str) -> str:
    """Return a text attribute of a group or dataset, ``""`` when it has none."""
    value = item.attrs.get(name, "")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
