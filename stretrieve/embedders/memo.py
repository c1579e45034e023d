"""Features of patches that a frozen backbone has seen already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.float32]
Views = tuple[npt.NDArray[np.uint8], ...]

_MAX_BYTES: Final = 256 << 20


class FeatureMemo:
    """Remembers features by the pixels they belong to, up to a bound.

    Fitting and filling a reference look at the same patches; the second look is free.

    Parameters
    ----------
    max_bytes
        Bound on what is kept; patches seen after it is reached are computed every time.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[bytes, Features] = {}
        self._bytes = 0

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

    def _keep(self, keys: list[bytes], features: Features) -> None:
        for key, row in zip(keys, features, strict=True):
            if self._bytes + row.nbytes > self._max_bytes:
                return
            if key not in self._kept:
                self._kept[key] = row.copy()
                self._bytes += row.nbytes


_SHARED: dict[str, FeatureMemo] = {}
_MAX_SHARED: Final = 2


def shared_memo(key: str) -> FeatureMemo:
    """Return the memo of a backbone, shared by all embedders of the process that use it.

    Parameters
    ----------
    key
        Digest of the backbone's weights and preprocessing. Only the last few backbones are kept.
    """
    memo = _SHARED.pop(key, None)
    memo = FeatureMemo() if memo is None else memo
    _SHARED[key] = memo
    while len(_SHARED) > _MAX_SHARED:
        del _SHARED[next(iter(_SHARED))]
    return memo


def _digest(patches: Views) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for patch in patches:
        digest.update(f"{patch.shape}".encode())
        digest.update(np.ascontiguousarray(patch).data)
    return digest.digest()
