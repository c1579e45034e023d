"""What every recipe shares: from the files of a public download to a samplesheet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stretrieve._files import atomic_path
from stretrieve.errors import InputError, InputNotFoundError, OutputExistsError, explain
from stretrieve.spots.sheet import COLUMNS

_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One section of a download.

    Parameters
    ----------
    section
        Name, unique in the data set.
    patient
        Donor.
    image, counts, spots
        Its files; ``spots`` is ``None`` where the format brings positions.
    disease
        Where it differs between sections.
    """

    section: str
    patient: str
    image: Path
    counts: Path
    spots: Path | None
    disease: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a download holds.

    Parameters
    ----------
    entries
        Complete sections.
    missing
        Section to what is wrong with it, for the sections that are not complete.
    """

    entries: tuple[Entry, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True)
class Recipe:
    """How the download of one published data set becomes a samplesheet.

    Parameters
    ----------
    name
        Name on the command line.
    title
        What it is.
    source
        Where it is downloaded.
    columns
        Values of ``organ``, ``species``, ``platform``, ``disease`` and ``format`` of every section.
    published
        The protocol of the paper that made the data set its benchmark.
    ours
        What is done here instead, and why.
    evaluate
        Options of ``stretrieve evaluate`` for our protocol.
    find
        Finds the sections in a downloaded folder.
    """

    name: str
    title: str
    source: str
    columns: Mapping[str, str]
    published: str
    ours: str
    evaluate: str
    find: Callable[[Path], Found]


@dataclass(frozen=True)
class Sheet:
    """A samplesheet that was written.

    Parameters
    ----------
    recipe
        The recipe.
    path
        The sheet.
    entries
        Its sections.
    missing
        Sections that the download lacks, with the reason.
    """

    recipe: Recipe
    path: Path
    entries: tuple[Entry, ...]
    missing: Mapping[str, str]

    @property
    def command(self) -> str:
        """How our protocol is run on it."""
        options = f" {self.recipe.evaluate}" if self.recipe.evaluate else ""
        return f"stretrieve evaluate {self.path}{options} --out {self.recipe.name}-results"


def build_sheet(
    recipe: Recipe,
    download: Path | str,
    out: Path | str,
    *,
    partial: bool = False,
    overwrite: bool = False,
) -> Sheet:
    """Find the sections of a download and write their samplesheet.

    Parameters
    ----------
    recipe
        What the download is.
    download
        Its folder.
    out
        The sheet to write (CSV). Paths in it are relative to it where the download lies beneath it,
        else absolute.
    partial
        Accept a download that lacks sections.
    overwrite
        Replace an existing sheet.

    Raises
    ------
    InputNotFoundError
        When there is no such folder.
    InputError
        When it holds no section, or lacks some and ``partial`` is off.
    OutputExistsError
        When the sheet exists and is not to be replaced.
    """
    folder, path = Path(download), Path(out)
    if not folder.is_dir():
        raise InputNotFoundError(explain("download", got=f"no folder {folder}"))
    if path.exists() and not overwrite:
        raise OutputExistsError(
            explain("sheet", got=f"{path} exists", remedy="choose another name or --overwrite")
        )
    found = recipe.find(folder.resolve())
    if not found.entries or (found.missing and not partial):
        raise _incomplete(recipe, folder, found)
    entries = tuple(sorted(found.entries, key=lambda entry: entry.section))
    _write(path, entries, recipe.columns)
    return Sheet(recipe, path, entries, found.missing)


def _incomplete(recipe: Recipe, folder: Path, found: Found) -> InputError:
    shown = [f"{name}: {why}" for name, why in list(found.missing.items())[:_MAX_SHOWN]]
    more = len(found.missing) - len(shown)
    total = len(found.entries) + len(found.missing)
    listed = "; ".join(shown) + (f"; and {more} more" if more else "")
    return InputError(
        explain(
            f"{recipe.title} in {folder}",
            got=f"{len(found.entries)} of {total} sections ({listed})",
            expected=f"the download of {recipe.source}",
            remedy="complete it, or take what is there with --partial" if found.entries else "",
        )
    )


def _write(path: Path, entries: Sequence[Entry], columns: Mapping[str, str]) -> None:
    home = path.absolute().parent.resolve()
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for entry in entries:
            files = {
                name: _relative(getattr(entry, name), home) for name in ("image", "counts", "spots")
            }
            row = {"section": entry.section, "patient": entry.patient, **columns, **files}
            writer.writerow({**row, "disease": entry.disease or columns.get("disease", "")})


def _relative(file: Path | None, home: Path) -> str:
    if file is None:
        return ""
    return str(file.relative_to(home) if file.is_relative_to(home) else file)


# finding files -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Files:
    """All files beneath a folder, by name."""

    by_name: Mapping[str, tuple[Path, ...]]

    @classmethod
    def under(cls, folder: Path) -> Files:
        """List a folder and everything beneath it."""
        names: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                names.setdefault(path.name, []).append(path)
        return cls({name: tuple(paths) for name, paths in names.items()})

    def one(self, *names: str, inside: Sequence[str] = ()) -> Path | None:
        """Return the file with the first of these names that occurs.

        Parameters
        ----------
        names
            File names, the best first.
        inside
            Names of folders that are preferred where files of one name lie in several.

        Raises
        ------
        InputError
            When several files have it.
        """
        for name in names:
            paths = self.by_name.get(name, ())
            paths = tuple(path for path in paths if path.parent.name in inside) or paths
            if len(paths) > 1:
                places = " and ".join(str(path.parent) for path in paths[:2])
                raise InputError(
                    explain(f"file {name}", got=f"one in {places}", expected="one download only")
                )
            if paths:
                return paths[0]
        return None

    def image(self, *stems: str, endings: Iterable[str]) -> Path | str:
        """Return the image with one of these stems, or what is wrong with it, in words."""
        names = [stem + ending for stem in stems for ending in endings]
        path = self.one(*names)
        if path is not None:
            return path
        packed = self.one(*(f"{name}.gz" for name in names))
        if packed is not None:
            return f"{packed.name} is packed: gunzip it"
        return f"no image {names[0]}"


def complete(
    section: str,
    patient: str,
    *,
    image: Path | str,
    counts: Path | None,
    spots: Path | None,
    wants: str,
    disease: str = "",
) -> Entry | str:
    """Return a section, or in words what it lacks.

    Parameters
    ----------
    section, patient, disease
        As in :class:`Entry`.
    image
        The image, or what is wrong with it.
    counts, spots
        Its tables; ``None`` for one that was not found.
    wants
        Names of the tables that are expected, for the message.
    """
    if counts is None or spots is None:
        return f"no {wants}"
    if isinstance(image, str):
        return image
    return Entry(section, patient, image, counts, spots, disease)


def gather(parts: Mapping[str, Entry | str]) -> Found:
    """Sort sections into those that are complete and those that are not."""
    entries = tuple(part for part in parts.values() if isinstance(part, Entry))
    missing = {name: part for name, part in parts.items() if isinstance(part, str)}
    return Found(entries, missing)
