"""References written by every earlier format version can be used; a file of each is kept here."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from stretrieve.errors import ManifestError
from stretrieve.reference import Reference, compact_reference, remove_sections, verify_reference
from stretrieve.reference.manifest import FORMAT_VERSION

from . import tiny

FIXTURES = Path(__file__).with_name("fixtures")
DIGESTS = {1: "f645450c9157dab078f5c191c14f6cb966193be22bf3b37c434a1dd7affd4eed"}


@pytest.fixture(params=sorted(DIGESTS))
def old(request, tmp_path):
    with zipfile.ZipFile(FIXTURES / f"format-{request.param}.zip") as archive:
        archive.extractall(tmp_path / "REF")
    return tmp_path / "REF", DIGESTS[request.param]


def test_there_is_a_fixture_of_every_format_version():
    assert set(DIGESTS) == set(range(1, FORMAT_VERSION + 1))
    assert tiny.DIM == 12


def test_it_opens_is_sound_and_answers(old):
    root, digest = old
    done = verify_reference(root)
    assert done.faults == ()
    assert done.content_digest == digest
    reference = Reference.open(root)
    assert len(reference.spots) == 18
    found = reference.search(reference.embeddings("image")[:2], 3, modality="image")
    np.testing.assert_array_equal(found.indices[:, 0], [0, 1])
    assert reference.expression(np.arange(18)).sum() == reference.spots.library_size.sum()
    assert len(Reference.open(root, tag="first").spots) == 9
    assert reference.embedder.dim == 12


def test_it_can_be_changed(old):
    root, _ = old
    remove_sections(root, sections=["A"])
    compact_reference(root, drop_tags=True)
    assert verify_reference(root).ok


def test_a_later_format_is_refused_by_name(old):
    root, _ = old
    path = root / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 2'))
    with pytest.raises(ManifestError, match=r"format version 2; expected 1; open it with"):
        Reference.open(root)
