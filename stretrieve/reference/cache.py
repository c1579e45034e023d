"""Sections of a running build on disk, so that memory does not grow with their number."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
from scipy import sparse

from stretrieve import keys
from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path, sha256_text, write_json
from stretrieve.embedders.base import SectionPatches
from stretrieve.spots import Section, SectionMeta
from stretrieve.units import Mpp, MppSource, PixelSize

_MAPPED = ("data", "indices", "indptr")


class SectionCache:
    """Sections by name; counts are memory-mapped, equal gene tables are shared.

    Parameters
    ----------
    folder
        Where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._genes: dict[str, pd.DataFrame] = {}

    def __contains__(self, name: str) -> bool:
        return self._path(name).is_dir()

    def put(self, section: Section) -> None:
        """Write one section in one step."""
        crash_point("cache a section")
        with atomic_path(self._path(section.meta.section)) as folder:
            folder.mkdir()
            counts = section.counts
            for name in _MAPPED:
                np.save(folder / f"{name}.npy", getattr(counts, name))
            np.savez(
                folder / "spots.npz",
                spot_ids=np.asarray(section.spot_ids, dtype=np.str_),
                xy=section.xy,
                array_xy=section.array_xy,
            )
            columns = [keys.GENE_ID, keys.GENE_SYMBOL]
            genes = {"key": [str(key) for key in section.genes.index]}
            genes |= {name: [str(value) for value in section.genes[name]] for name in columns}
            (folder / "genes.json").write_text(json.dumps(genes), encoding="utf-8")
            facts = {
                "meta": asdict(section.meta),
                "shape": list(counts.shape),
                "mpp": [float(section.pixel_size.x), float(section.pixel_size.y)],
                "mpp_source": section.pixel_size.source.value,
                "image": str(section.image) if section.image else "",
                "repairs": list(section.repairs),
            }
            write_json(folder / "section.json", facts)

    def get(self, name: str) -> Section:
        """Return one section, its counts memory-mapped."""
        folder = self._path(name)
        facts = json.loads((folder / "section.json").read_text(encoding="utf-8"))
        data, indices, indptr = (
            np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False) for part in _MAPPED
        )
        spots = np.load(folder / "spots.npz", allow_pickle=False)
        mpp_x, mpp_y = facts["mpp"]
        return Section(
            SectionMeta(**facts["meta"]),
            sparse.csr_matrix((data, indices, indptr), shape=tuple(facts["shape"]), copy=False),
            self._gene_table(folder / "genes.json"),
            spots["spot_ids"],
            spots["xy"],
            spots["array_xy"],
            PixelSize(Mpp(mpp_x), Mpp(mpp_y), MppSource(facts["mpp_source"])),
            Path(facts["image"]) if facts["image"] else None,
            tuple(facts["repairs"]),
        )

    def _gene_table(self, path: Path) -> pd.DataFrame:
        text = path.read_text(encoding="utf-8")
        digest = sha256_text(text)
        if digest not in self._genes:
            data = json.loads(text)
            self._genes[digest] = pd.DataFrame(data).set_index("key")
        return self._genes[digest]

    def _path(self, name: str) -> Path:
        return self._folder / sha256_text(name)[:32]


class LazyPatches(Sequence[SectionPatches]):
    """Sections with their patches, opened when asked for.

    Parameters
    ----------
    names
        Names of the sections.
    open_one
        Opens one of them.
    """

    def __init__(self, names: Sequence[str], open_one: Callable[[str], SectionPatches]) -> None:
        self.names = tuple(names)
        self._open_one = open_one

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> SectionPatches: ...

    @overload
    def __getitem__(self, index: slice) -> LazyPatches: ...

    def __getitem__(self, index: int | slice) -> SectionPatches | LazyPatches:
        if isinstance(index, slice):
            return LazyPatches(self.names[index], self._open_one)
        return self._open_one(self.names[index])
