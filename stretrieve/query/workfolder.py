"""The hidden folder beside the output in which a query keeps what it has finished."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from stretrieve._failpoints import crash_point
from stretrieve._files import write_json
from stretrieve.query.groups import EncodedGroup, RowGroup
from stretrieve.query.parts import (
    Form,
    PackedGroup,
    pack,
    read_encoded,
    read_part,
    write_encoded,
    write_part,
)
from stretrieve.reference.layout import delete
from stretrieve.reference.locks import writer_lock
from stretrieve.reference.resources import typed_os_errors


class WorkFolder:
    """Finished row groups of one query; those of an interrupted run are taken over.

    Parameters
    ----------
    path
        The folder.
    form
        Shape and storage of the output.

    Attributes
    ----------
    on_put
        Called with each group that is :meth:`put`.
    """

    def __init__(self, path: Path, form: Form) -> None:
        self.path = path
        self.form = form
        self.on_put: Callable[[PackedGroup], object] = lambda _: None

    def finished(self) -> set[int]:
        """Return the numbers of the groups that are predicted already."""
        return {int(path.stem) for path in (self.path / "rows").glob("[0-9]*.npz")}

    def put(self, group: RowGroup) -> None:
        """Keep the predictions of a group, and hand it to :attr:`on_put`."""
        packed = pack(group, self.form)
        write_part(self.path / "rows" / f"{group.number:07d}.npz", packed)
        self.on_put(packed)

    def encoded(self) -> set[int]:
        """Return the numbers of the groups that are encoded already."""
        return {int(path.stem) for path in (self.path / "encoded").glob("[0-9]*.npz")}

    def put_encoded(self, group: EncodedGroup) -> None:
        """Keep what the network made of a group."""
        write_encoded(self.path / "encoded" / f"{group.number:07d}.npz", group)

    def take_encoded(self, number: int) -> EncodedGroup:
        """Return what :meth:`put_encoded` kept."""
        return read_encoded(self.path / "encoded" / f"{number:07d}.npz")

    @property
    def table(self) -> Path:
        """Where the table of an output of several parts is put together."""
        return self.path / "table.h5ad"

    @property
    def output(self) -> Path:
        """Where the output is put together."""
        return self.path / "output"

    def name_output(self, out: Path) -> None:
        """Give the output its name, in place of what may bear it."""
        crash_point("name the output")
        if out.is_dir():
            out.replace(self.path / "replaced")
        self.output.replace(out)
        crash_point("named the output")

    def groups(self, *, matrices: bool = True) -> Iterator[PackedGroup]:
        """Yield all groups in order, one in memory at a time."""
        for number in sorted(self.finished()):
            path = self.path / "rows" / f"{number:07d}.npz"
            yield read_part(path, self.form, matrices=matrices)


def work_path(out: Path) -> Path:
    """Return the work folder of an output."""
    return out.with_name(f".{out.name}.querying")


@contextlib.contextmanager
def open_work(out: Path, *, digest: str, form: Form) -> Iterator[WorkFolder]:
    """Begin a query or go on with an interrupted one, alone; removed when the block succeeds.

    What an earlier run of another query has left is discarded. After an error everything finished is
    kept for the next run.

    Parameters
    ----------
    out
        Where the output shall be.
    digest
        Of everything that decides the answer.
    form
        Shape and storage of the output.

    Raises
    ------
    BusyError
        When another process writes the same output.
    ResourceError
        When the disk is full.
    InputError
        When the place cannot be written to.
    """
    what = f"query into {out.name}"
    path = work_path(out)
    with typed_os_errors(what):
        path.mkdir(parents=True, exist_ok=True)
    with typed_os_errors(what), writer_lock(path / "lock", what=what):
        _enter(path, digest)
        yield WorkFolder(path, form)
        crash_point("remove the work folder")
    shutil.rmtree(path, ignore_errors=True)


def _enter(path: Path, digest: str) -> None:
    journal = path / "journal.json"
    if _begun_as(journal) != digest:
        for folder in ("rows", "encoded"):
            delete(path / folder)
        write_json(journal, {"digest": digest})
        crash_point("wrote the journal")
    for half in (path / "output", path / "table.h5ad", path / "replaced", *path.rglob(".*.tmp-*")):
        delete(half)


def _begun_as(journal: Path) -> str | None:
    try:
        digest = json.loads(journal.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(digest)


def discard_work(out: Path) -> None:
    """Remove the work folder of an output, if there is one."""
    shutil.rmtree(work_path(out), ignore_errors=True)
