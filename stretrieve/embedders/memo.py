"""Features of patches that a frozen backbone has seen already."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from stretrieve._files import atomic_path

Features = npt.NDArray[np.float32]
Views = tuple[npt.NDArray[np.uint8], ...]

_MAX_BYTES: Final = 256 << 20
_DIGEST: Final = 16


class FeatureMemo:
    """Remembers features by the pixels they belong to, up to a bound.

    Fitting and filling a reference look at the same patches; the second look is free.

    Parameters
    ----------
    max_bytes
        Bound on what is kept; patches seen after it is reached are computed every time.
    path
        ``.npz`` file of an earlier :meth:`write` to begin with; one that is missing or damaged is
        as good as none. ``None`` keeps features in memory only.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES, *, path: Path | None = None) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[bytes, Features] = {}
        self._bytes = 0
        self._path = path
        self._written = 0
        if path is not None and path.is_file():
            self._read(path)

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._bytes = 0

    def encode(self, views: Views, encode: Callable[[Views], Features]) -> Features:
        """Return ``encode(views)``, computing only rows whose pixels are new.

        Parameters
        ----------
        views
            One array a view, ``(n_patches, patch_px, patch_px, 3)`` uint8 RGB.
        encode
            The backbone; row-wise.
        """
        keys = [_digest(patches) for patches in zip(*views, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self._kept]
        fresh = encode(tuple(view[new] for view in views)) if new or not keys else None
        if fresh is None:
            return np.stack([self._kept[key] for key in keys])
        if len(new) == len(keys):
            self._keep(keys, fresh)
            return fresh
        features = np.empty((len(keys), fresh.shape[1]), dtype=np.float32)
        features[new] = fresh
        for i in set(range(len(keys))) - set(new):
            features[i] = self._kept[keys[i]]
        self._keep([keys[i] for i in new], fresh)
        return features

    def write(self) -> None:
        """Write what is kept to its file, when there is one and something is new."""
        if self._path is None or len(self._kept) == self._written:
            return
        with atomic_path(self._path) as temporary, temporary.open("wb") as stream:
            keys = np.frombuffer(b"".join(self._kept), np.uint8).reshape(-1, _DIGEST)
            np.savez(stream, keys=keys, features=np.stack(list(self._kept.values())))
        self._written = len(self._kept)

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                keys, features = arrays["keys"], arrays["features"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return
        if keys.shape == (len(features), _DIGEST) and features.dtype == np.float32:
            self._keep([key.tobytes() for key in keys], features)
            self._written = len(self._kept)

    def _keep(self, keys: list[bytes], features: Features) -> None:
        for key, row in zip(keys, features, strict=True):
            if self._bytes + row.nbytes > self._max_bytes:
                return
            if key not in self._kept:
                self._kept[key] = row.copy()
                self._bytes += row.nbytes


_SHARED: dict[str, FeatureMemo] = {}
_MAX_SHARED: Final = 3
_FOLDERS: list[Path] = []


@contextlib.contextmanager
def kept_features(folder: Path) -> Iterator[None]:
    """Keep the features of frozen backbones in a folder: within the block, and for the next one.

    Fitting the same backbone on other splits, with other heads or seeds, or in another process, then
    costs no forward pass. Features are found by the pixels of their patch and by the digest of
    weights and preprocessing, so nothing stale is ever used. Blocks may be nested; the innermost
    folder counts.

    Parameters
    ----------
    folder
        Made when missing; one ``.npz`` file a backbone.
    """
    _set_down()
    _FOLDERS.append(Path(folder))
    try:
        yield
    finally:
        _set_down()
        _FOLDERS.pop()


def keeps_features() -> bool:
    """Say whether a :func:`kept_features` block is open."""
    return bool(_FOLDERS)


def _set_down() -> None:
    """Write all memos to their files and begin anew."""
    for memo in _SHARED.values():
        memo.write()
    _SHARED.clear()


def shared_memo(key: str) -> FeatureMemo:
    """Return the memo of a backbone, shared by all embedders of the process that use it.

    Parameters
    ----------
    key
        Digest of the backbone's weights and preprocessing. Only the last few backbones are kept.
    """
    memo = _SHARED.pop(key, None)
    if memo is None:
        memo = FeatureMemo(path=_FOLDERS[-1] / f"{key[:32]}.npz" if _FOLDERS else None)
    _SHARED[key] = memo
    while len(_SHARED) > _MAX_SHARED:
        _SHARED.pop(next(iter(_SHARED))).write()
    return memo


def _digest(patches: Views) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for patch in patches:
        digest.update(f"{patch.shape}".encode())
        digest.update(np.ascontiguousarray(patch).data)
    return digest.digest()
