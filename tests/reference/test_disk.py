"""A disk that is full or read-only: a typed error, and nothing lost."""

import os
import shutil
import subprocess

import numpy as np
import pytest

from stretrieve.errors import InputError, ResourceError
from stretrieve.reference import (
    Reference,
    add_sections,
    build_reference,
    compact_reference,
    export_reference,
    verify_reference,
)

from .conftest import SETTINGS


def _mount(*arguments):
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def disk(tmp_path):
    """Return a function that makes a small file system, or gives it another size or mode."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder).returncode:
        pytest.skip("needs the right to mount a small file system")

    def remount(options):
        done = _mount("-o", f"remount,{options}", folder)
        assert done.returncode == 0, done.stderr
        return folder

    yield remount
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", [60, 150, 200, 250, 300, 350])
def test_a_build_on_a_full_disk_resumes_when_there_is_space(disk, sections, built, size):
    folder = disk(f"size={size}k")
    with pytest.raises(ResourceError, match="full disk"):
        build_reference(sections, folder / "REF", settings=SETTINGS)
    assert not (folder / "REF").exists()
    disk("size=50m")
    resume = (folder / ".REF.building").exists()
    made = build_reference(sections, folder / "REF", settings=SETTINGS, resume=resume)
    assert made.manifest.content_digest == Reference.open(built).manifest.content_digest
    assert verify_reference(folder / "REF").ok


@pytest.mark.parametrize("spare", [10, 60, 120, 200])
def test_a_change_on_a_full_disk_leaves_the_last_version(disk, built, new_section, spare):
    folder = disk("size=50m")
    root = shutil.copytree(built, folder / "REF")
    used = int(subprocess.check_output(["du", "-sk", folder]).split()[0])
    for change in (lambda: add_sections(root, [new_section]), lambda: compact_reference(root)):
        digest = Reference.open(root).manifest.content_digest
        disk(f"size={used + spare}k")
        try:
            change()
        except ResourceError as error:
            assert "full disk" in str(error)
            assert Reference.open(root).manifest.content_digest == digest
            assert verify_reference(root).ok
        disk("size=50m")
    if Reference.open(root).manifest.n_spots == 66:
        add_sections(root, [new_section])
    assert verify_reference(root).ok
    assert Reference.open(root).manifest.n_spots == 91


def test_a_read_only_reference_can_be_read_and_not_written(disk, built, new_section, sections):
    folder = disk("size=50m")
    root = shutil.copytree(built, folder / "REF")
    disk("ro")
    reference = Reference.open(root)
    queries = np.random.default_rng(0).normal(size=(3, 12))
    found = reference.search(queries, 4)
    expected = Reference.open(built).search(queries, 4)
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert reference.expression(found.indices[0]).shape == (4, 45)
    assert verify_reference(root).ok
    for change in (
        lambda: add_sections(root, [new_section]),
        lambda: compact_reference(root),
        lambda: export_reference(root, folder / "x.zip"),
        lambda: build_reference(sections, folder / "NEW", settings=SETTINGS),
    ):
        with pytest.raises(InputError, match=r"written|read-only"):
            change()
