import json
from dataclasses import replace

import numpy as np
import pytest

from stretrieve.errors import (
    BusyError,
    ConfigError,
    OutputExistsError,
    SectionError,
    SheetError,
    UnknownNameError,
)
from stretrieve.reference import BuildSettings, Reference, build_reference
from stretrieve.reference import build as module
from stretrieve.reference.locks import writer_lock

from .conftest import SETTINGS
from .tiny import DIM, make_section


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_but_the_reference_is_left(sections, tmp_path):
    build_reference(sections, tmp_path / "REF", settings=SETTINGS)
    assert listing(tmp_path) == ["REF"]
    assert listing(tmp_path / "REF") == [
        "embedder",
        "indexes",
        "lance",
        "manifest.json",
        "versions",
    ]


def test_the_order_of_sections_does_not_matter(sections, built, tmp_path):
    other = build_reference(sections[::-1], tmp_path / "REF", settings=SETTINGS)
    first = Reference.open(built)
    assert other.manifest.content_digest == first.manifest.content_digest
    assert other.manifest.reference_id == first.manifest.reference_id
    assert list(other.genes.index) == list(first.genes.index)
    for modality in ("image", "expression"):
        one, two = (r.manifest.indexes[modality] for r in (first, other))
        assert (one.vectors_sha256, one.index_sha256) == (two.vectors_sha256, two.index_sha256)


@pytest.mark.parametrize(
    "changed", [{"batch_size": 7}, {"thumbnail_px": 8}, {"recipe": "hnsw"}, {"recipe": "exact"}]
)
def test_settings_that_do_not_change_vectors(sections, built, tmp_path, changed):
    other = build_reference(sections, tmp_path / "REF", settings=replace(SETTINGS, **changed))
    same_content = other.manifest.content_digest == Reference.open(built).manifest.content_digest
    assert same_content == ("thumbnail_px" not in changed)
    np.testing.assert_array_equal(
        other.embeddings("image"), Reference.open(built).embeddings("image")
    )


def test_existing_output_is_left_alone(sections, tmp_path):
    (tmp_path / "REF").mkdir()
    with pytest.raises(OutputExistsError, match="exists"):
        build_reference(sections, tmp_path / "REF", settings=SETTINGS)
    assert listing(tmp_path) == ["REF"]


def test_bad_sections_leave_nothing(sections, tmp_path):
    bad = replace(sections[0], meta=replace(sections[0].meta, section="x/y"))
    for given, error in (([], SheetError), ([sections[0]] * 2, SheetError)):
        with pytest.raises(error):
            build_reference(given, tmp_path / "REF", settings=SETTINGS)
    with pytest.raises(SectionError, match="slash"):
        build_reference([bad], tmp_path / "REF", settings=SETTINGS)
    assert listing(tmp_path) == []


def test_unknown_names_are_refused_before_anything_is_made(sections, tmp_path):
    with pytest.raises(UnknownNameError):
        replace(SETTINGS, recipe="flatt")
    with pytest.raises(UnknownNameError):
        build_reference(sections, tmp_path / "REF", settings=replace(SETTINGS, embedder="tyni"))
    assert listing(tmp_path) == []


@pytest.mark.parametrize("bad", [{"thumbnail_px": 1}, {"workers": 0}, {"batch_size": 0}])
def test_settings_out_of_range(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        BuildSettings(**bad)


def test_a_section_without_image_is_refused(sections, tmp_path):
    with pytest.raises(SectionError, match="no image"):
        build_reference([replace(sections[0], image=None)], tmp_path / "REF", settings=SETTINGS)
    assert not (tmp_path / "REF").exists()


def test_an_index_below_its_recall_floor_is_refused(sections, tmp_path, monkeypatch):
    from stretrieve.indexes.recall import IndexMeasure
    from stretrieve.reference import derive

    monkeypatch.setattr(derive, "measure_index", lambda *_, k: IndexMeasure(0.2, 1.0, k))
    with pytest.raises(ConfigError, match=r"recall 0\.200.*use the recipe 'flat'"):
        build_reference(sections, tmp_path / "REF", settings=replace(SETTINGS, recipe="hnsw"))
    monkeypatch.undo()
    made = build_reference(sections, tmp_path / "REF", settings=SETTINGS, resume=True)
    assert made.manifest.indexes["image"].recipe == "flat"


class Stopped(BaseException):
    """Stands in for a kill."""


def interrupt(monkeypatch, module, name):
    def stop(point):
        if point.startswith(name):
            raise Stopped

    monkeypatch.setattr(module, "crash_point", stop)


def test_an_interrupted_build_resumes(sections, built, tmp_path, monkeypatch):
    out = tmp_path / "REF"
    interrupt(monkeypatch, module, "saved the embedder")
    with pytest.raises(Stopped):
        build_reference(sections, out, settings=SETTINGS)
    monkeypatch.undo()
    assert listing(tmp_path) == [".REF.building"]
    with pytest.raises(OutputExistsError, match="--resume, or remove"):
        build_reference(sections, out, settings=SETTINGS)
    with pytest.raises(ConfigError, match="thumbnail_px"):
        build_reference(sections, out, settings=replace(SETTINGS, thumbnail_px=20), resume=True)
    with pytest.raises(ConfigError, match="other sections"):
        build_reference(sections[:2], out, settings=SETTINGS, resume=True)
    monkeypatch.setattr(
        module.training, "fit_embedder", lambda *_, **__: pytest.fail("fitted again")
    )
    made = build_reference(sections, out, settings=SETTINGS, resume=True)
    assert made.manifest.content_digest == Reference.open(built).manifest.content_digest
    assert listing(tmp_path) == ["REF"]


def test_two_builders_of_one_reference(sections, tmp_path):
    work = tmp_path / ".REF.building"
    work.mkdir()
    with writer_lock(work / "lock", what="test"), pytest.raises(BusyError, match="another process"):
        build_reference(sections, tmp_path / "REF", settings=SETTINGS)


def test_the_manifest_says_how_it_was_made(built):
    data = json.loads((built / "manifest.json").read_text())
    assert data["settings"]["embedder"] == "tiny"
    assert data["embedder"]["config"] == {"dim": DIM, "seed": 0}
    assert data["embedder"]["patch_spec"]["views"] == [{"patch_px": 16, "mpp": 1.0}]
    assert data["libraries"]["lancedb"].startswith("0.40")
    assert data["store"]["tables"].keys() == {"spots", "genes", "sections"}
    assert set(data["embedder"]["files"]) == {"config.json", "model.safetensors"}
    assert [s["section"] for s in data["sections"]] == ["A", "A-1", "B"]


def test_gene_names_of_any_section_that_knows_them(tmp_path):
    a = make_section(tmp_path, "a", genes=["X", "Y"])
    b = make_section(tmp_path, "b", genes=["Y", "Z"])
    a.genes["gene_symbol"] = ""
    union = module.gene_union([a, b])
    assert list(union.index) == ["X", "Y", "Z"]
    assert list(union.gene_symbol) == ["", "Y", "Z"]
    assert list(union.gene_id) == ["ENSG", "ENSG", "ENSG"]
