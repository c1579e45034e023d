"""The sibling folder in which a reference is built, so that nothing half-made bears its name."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stretrieve._failpoints import crash_point
from stretrieve._files import write_json
from stretrieve.errors import ConfigError, OutputExistsError, explain
from stretrieve.reference.layout import Layout, delete
from stretrieve.reference.locks import writer_lock
from stretrieve.reference.resources import typed_os_errors

_FREE_TO_CHANGE = ("recipe", "workers", "batch_size")


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Paths inside the folder of a running build.

    Parameters
    ----------
    out
        Where the reference shall be.
    resumed
        Whether an earlier process has begun the build.
    """

    out: Path
    resumed: bool = False

    @property
    def path(self) -> Path:
        """The folder, beside ``out``."""
        return self.out.with_name(f".{self.out.name}.building")

    @property
    def reference(self) -> Layout:
        """The reference as it grows."""
        return Layout(self.path / "reference")

    @property
    def patches(self) -> Path:
        """Decoded patches."""
        return self.path / "patches"

    @property
    def sections(self) -> Path:
        """Sections as they were read."""
        return self.path / "sections"

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the training."""
        return self.path / "checkpoint"

    @property
    def journal(self) -> Path:
        """What is being built of what."""
        return self.path / "journal.json"

    def finish(self) -> None:
        """Give the reference its name and remove the rest."""
        crash_point("name the reference")
        if self.reference.root.is_dir():
            self.reference.root.replace(self.out)
        crash_point("remove the work folder")
        shutil.rmtree(self.path)


@contextlib.contextmanager
def open_work(
    out: Path, *, source: str, settings: Mapping[str, Any], resume: bool
) -> Iterator[WorkFolder]:
    """Begin a build or go on with one, alone.

    Parameters
    ----------
    out
        Where the reference shall be.
    source
        Digest of the input.
    settings
        Settings of the build, as plain data.
    resume
        Go on with an interrupted build, or finish one that lacked its last step.

    Raises
    ------
    OutputExistsError
        When something is at ``out``, or an interrupted build is there and ``resume`` is off.
    ConfigError
        When the interrupted build was begun with other settings or other input.
    BusyError
        When another process is building the same reference.
    """
    begun = WorkFolder(out).path.is_dir()
    work = WorkFolder(out, resumed=begun and WorkFolder(out).journal.is_file())
    if out.exists() and not (resume and begun):
        raise OutputExistsError(
            explain(
                "output", got=f"{out}, which exists", remedy="choose another --out or remove it"
            )
        )
    with typed_os_errors(f"build of {out.name}"):
        work.path.mkdir(parents=True, exist_ok=True)
    with (
        typed_os_errors(f"build of {out.name}"),
        writer_lock(work.path / "lock", what=f"build of {out.name}"),
    ):
        if begun and not resume:
            raise OutputExistsError(
                explain(
                    "output",
                    got=f"an interrupted build of {out.name}",
                    remedy=f"go on with --resume, or remove {work.path}",
                )
            )
        _enter(work, {"source": source, "settings": dict(settings)})
        yield work


def _enter(work: WorkFolder, wanted: Mapping[str, Any]) -> None:
    for path in work.path.rglob(".*.tmp-*"):
        delete(path)
    if not work.journal.is_file():
        write_json(work.journal, wanted)
        crash_point("wrote the journal")
        return
    begun = json.loads(work.journal.read_text(encoding="utf-8"))
    if begun["source"] != wanted["source"]:
        raise ConfigError(
            explain(
                "resumed build",
                got="other sections than it was begun with",
                remedy=f"use the same input, or remove {work.path}",
            )
        )
    plain = json.loads(json.dumps(wanted["settings"]))
    changed = [
        name
        for name, value in plain.items()
        if name not in _FREE_TO_CHANGE and value != begun["settings"].get(name)
    ]
    if changed:
        raise ConfigError(
            explain(
                "resumed build",
                got=f"other settings than it was begun with: {', '.join(changed)}",
                remedy=f"use the same settings, or remove {work.path}",
            )
        )
