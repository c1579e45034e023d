"""Wherever a write is cut off, the reference opens, is sound, and the work can be done again."""

import pickle
import random
import shutil

import pytest

from stretrieve.errors import SectionError, StretrieveError
from stretrieve.reference import (
    FurtherSettings,
    Reference,
    add_embedder,
    add_sections,
    export_reference,
    remove_sections,
    verify_reference,
)

from .crash import CRASH_CODE, count_points, fresh, operation, run_child

OPERATIONS = [
    "build", "add", "remove", "compact", "rebuild", "tag", "calibrate", "export", "import",
    "embedder", "remove-embedder",
]  # fmt: skip
NEW = {"build", "import"}
SAMPLE = {"build": 4, "add": 3, "remove": 3, "compact": 4, "embedder": 2}


@pytest.fixture(scope="module")
def stage(built, sections, new_section, tmp_path_factory):
    """Folder with inputs, a reference of three versions to change, and an exported one."""
    folder = tmp_path_factory.mktemp("crash")
    (folder / "inputs").write_bytes(pickle.dumps((sections, new_section)))
    shutil.copytree(built, folder / "START")
    renamed = type(new_section)(
        **{
            **new_section.__dict__,
            "meta": type(new_section.meta)(section="D", patient="P4", organ="breast"),
        }
    )
    add_sections(folder / "START", [renamed])
    remove_sections(folder / "START", sections=["D"])
    add_embedder(folder / "START", sections, FurtherSettings("tiny", {"dim": 4}), label="other")
    export_reference(folder / "START", folder / "in.zip")
    return folder


def prepare(stage, name):
    fresh(None if name in NEW else stage / "START", stage / "REF")
    return stage / "REF"


def state(root):
    manifest = Reference.open(root).manifest
    return manifest.content_digest, manifest.calibration


def finish(name, root, inputs):
    """Do the operation again, as a user would."""
    try:
        operation(name, root, inputs)
    except SectionError:
        assert name == "add"
    except StretrieveError as error:
        done = {
            "remove": "does not hold",
            "embedder": "is taken",
            "remove-embedder": "got 'other'",
        }
        if name not in done or done[name] not in str(error):
            raise


def check(stage, name, before, after):
    """After a crash: as before or as after, sound; and the work done again gives the same."""
    root = stage / "REF"
    if root.exists():
        assert state(root) in (before, after)
        done = verify_reference(root)
        assert done.ok, done.faults
    else:
        assert name in NEW
    (stage / "out.zip").unlink(missing_ok=True)
    finish(name, root, stage / "inputs")
    assert state(root) == after
    done = verify_reference(root)
    assert done.ok, done.faults
    left = list(root.rglob(".*.tmp-*"))
    assert left == []
    assert not root.with_name(".REF.building").exists()


def expected(stage, name):
    root = prepare(stage, name)
    before = None if name in NEW else state(root)
    points = count_points(name, root, stage / "inputs")
    return before, state(root), points


def points_to_try(name, points, *, everything):
    if everything:
        return range(1, points + 1)
    return sorted(random.Random(3).sample(range(1, points + 1), SAMPLE.get(name, 1)))


def crash_everywhere(stage, name, *, everything):
    before, after, points = expected(stage, name)
    for number in points_to_try(name, points, everything=everything):
        root = prepare(stage, name)
        code = run_child(name, root, stage / "inputs", crash_at=number)
        assert code == CRASH_CODE, f"point {number} of {points}"
        check(stage, name, before, after)
    return points


@pytest.mark.parametrize("name", OPERATIONS)
def test_crash_at_some_points(stage, name):
    crash_everywhere(stage, name, everything=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", OPERATIONS)
def test_crash_at_every_point(stage, name):
    crash_everywhere(stage, name, everything=True)


def kill_at_random(stage, name, *, times, seed):
    before, after, _ = expected(stage, name)
    chance = random.Random(seed)
    for _ in range(times):
        root = prepare(stage, name)
        code = run_child(name, root, stage / "inputs", kill_after_s=chance.uniform(0.2, 2.0))
        assert code in (0, -9)
        check(stage, name, before, after)


@pytest.mark.parametrize("name", ["build", "add"])
def test_some_random_kills(stage, name):
    kill_at_random(stage, name, times=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "times"), [("build", 80), ("add", 50), ("remove", 30), ("compact", 40)]
)
def test_two_hundred_random_kills(stage, name, times):
    kill_at_random(stage, name, times=times, seed=2)
