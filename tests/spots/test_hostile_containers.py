"""HDF5 and zarr that reach outside themselves, declare too much, or name things they should not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from stretrieve.errors import InputError, InputNotFoundError, SectionError
from stretrieve.spots import SheetRow, read_section
from stretrieve.spots.hdf5 import open_checked
from stretrieve.spots.zarrsafe import check_zarr, open_checked_zarr

from .layouts import adata, toy


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret.bin").write_bytes(b"\x01" * 80)
    file.create_dataset(
        "x", shape=(10,), dtype="f8", external=[(str(folder / "secret.bin"), 0, 80)]
    )


def external_link(file: h5py.File, folder: Path) -> None:
    file["x"] = h5py.ExternalLink(str(folder / "other.h5"), "/")


def soft_link(file: h5py.File, folder: Path) -> None:
    file["x"] = h5py.SoftLink("/obs")


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="i4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "d", shape=(4,))
    file.create_virtual_dataset("x", layout)


def bomb(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", shape=(1 << 33,), dtype="f4", chunks=(1 << 20,), compression="gzip")


def small_bombs(file: h5py.File, folder: Path) -> None:
    for i in range(3000):
        file.create_dataset(f"x{i}", shape=(60 << 20,), dtype="u1", chunks=(1 << 16,))


def big_chunk(file: h5py.File, folder: Path) -> None:
    file.create_dataset("x", shape=(1 << 31,), dtype="u1", chunks=((1 << 31),))


def dots(file: h5py.File, folder: Path) -> None:
    file.create_group("a\\..\\b")


def circle(file: h5py.File, folder: Path) -> None:
    file["obs/again"] = file["/"]


def deep(file: h5py.File, folder: Path) -> None:
    file.create_group("/".join("a" * 60))


@pytest.mark.parametrize(
    "attack",
    [
        external_storage,
        external_link,
        soft_link,
        virtual,
        bomb,
        small_bombs,
        big_chunk,
        dots,
        circle,
        deep,
    ],
)
def test_hostile_hdf5_is_refused_before_a_value_is_read(
    tmp_path: Path, attack: Callable[[h5py.File, Path], None]
) -> None:
    path = tmp_path / "a.h5ad"
    adata(toy()).write_h5ad(path)
    with h5py.File(path, "a") as file:
        attack(file, tmp_path)
    with pytest.raises(SectionError, match=r"a\.h5ad") as caught:
        read_section(SheetRow("s", path, platform="visium"))
    assert "\n" not in str(caught.value)


def test_unknown_filter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((10,))
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(32999, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT32, space, plist)
    with pytest.raises(SectionError, match="compression 32999"), open_checked(path):
        pass


def test_the_same_group_twice_is_no_circle(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("a")
        file["b"] = file["a"]
    with open_checked(tmp_path / "a.h5") as file:
        assert set(file) == {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"not hdf5", b"\x89HDF\r\n\x1a\n" + b"\x00" * 100])
def test_files_that_are_no_hdf5(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(SectionError, match="intact"), open_checked(tmp_path / "a.h5"):
        pass


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError), open_checked(tmp_path / "a.h5"):
        pass
    with pytest.raises(InputNotFoundError), open_checked_zarr(tmp_path / "a.zarr"):
        pass


@pytest.fixture
def store(tmp_path: Path) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata(toy()).write_zarr(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def metadata(store: Path) -> list[Path]:
    return sorted(p for p in store.rglob("*") if p.name in {".zarray", "zarr.json"})


def an_array(store: Path) -> Path:
    return next(p for p in metadata(store) if "shape" in json.loads(p.read_text()))


def change(store: Path, **fields: object) -> None:
    path = an_array(store)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    "fields",
    [
        {"filters": [{"id": "pickle", "protocol": 5}], "compressor": None},
        {"compressor": {"id": "evil"}, "filters": None},
        {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    ],
)
def test_zarr_with_codecs_that_run_code_is_refused(store: Path, fields: dict[str, object]) -> None:
    check_zarr(store)
    change(store, **fields)
    with pytest.raises(SectionError, match="codec"):
        check_zarr(store)


def test_zarr_bomb(store: Path) -> None:
    change(store, shape=[1 << 36])
    with pytest.raises(SectionError, match="declared"):
        check_zarr(store)


def test_zarr_link_out_of_the_folder(store: Path) -> None:
    (store / "leak").symlink_to("/")
    with pytest.raises(SectionError, match="a link"):
        check_zarr(store)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "null", '{"shape": "x"}', '{"codecs": 3}', '{"filters": [1]}']
)
def test_zarr_with_broken_metadata(store: Path, text: str) -> None:
    an_array(store).write_text(text)
    with pytest.raises(InputError):
        read_section(SheetRow("s", store, platform="visium", format="anndata"))
