"""Slides in parts: the same answer whatever the parts, into files, through interruptions."""

import dataclasses
import json
import os
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from stretrieve import QueryEngine, QuerySettings
from stretrieve._failpoints import CRASH_CODE
from stretrieve.errors import OutputExistsError, ResourceError, SlideError
from stretrieve.query import (
    Centring,
    OutputSettings,
    Question,
    SpotPositions,
    encode,
    groups,
    rows,
    stream,
)
from stretrieve.query.memory import is_out_of_memory
from stretrieve.query.workfolder import work_path
from stretrieve.query.write import OutputFormat
from stretrieve.slides import Slide, open_slide, patches
from stretrieve.specs import PatchSpec
from tests.query.interrupted import part_files, run_child

SETTINGS = QuerySettings(top_k=12, batch_size=16)
BOTH = dataclasses.replace(SETTINGS, centring=Centring.BOTH)
SMOOTH = dataclasses.replace(SETTINGS, smoothing_um=300.0, companion=0.5)


@pytest.fixture
def question(sections):
    section = sections[3]
    return Question(section.image, mpp=5.0, spots=SpotPositions(section.spot_ids, section.xy))


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(groups, "MAX_ROWS", 16)


def ask(reference, question, *, settings=SETTINGS, devices=()):
    engine = QueryEngine(reference, settings=settings, devices=devices)
    return engine.query(
        question.slide, mpp=question.mpp, spots=question.spots, genes=question.genes
    ).adata


def dense(matrix):
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def assert_same(got, wanted):
    np.testing.assert_array_equal(dense(got.X), wanted.X)
    for name in wanted.layers:
        np.testing.assert_array_equal(dense(got.layers[name]), wanted.layers[name])
    for name in wanted.obsm:
        np.testing.assert_array_equal(got.obsm[name], wanted.obsm[name])
    pd.testing.assert_frame_equal(got.obs, wanted.obs)
    pd.testing.assert_frame_equal(got.var, wanted.var)
    uids = [list(a.uns["stretrieve"]["neighbour_spot_uid"]) for a in (got, wanted)]
    assert uids[0] == uids[1]


@pytest.mark.parametrize("settings", [SETTINGS, BOTH, SMOOTH], ids=["plain", "both", "smooth"])
def test_groups_batches_processes_and_devices_change_no_value(
    reference, question, settings, monkeypatch
):
    wanted = ask(reference, question, settings=settings)
    monkeypatch.setattr(groups, "MAX_ROWS", 16)
    for batch_size, workers, devices in ((64, 1, ()), (1, 2, ()), (16, 1, ("cpu", "cpu", "cpu"))):
        other = dataclasses.replace(settings, batch_size=batch_size, workers=workers)
        assert_same(ask(reference, question, settings=other, devices=devices), wanted)


@pytest.mark.parametrize("settings", [SETTINGS, SMOOTH], ids=["plain", "smooth"])
def test_blocks_of_genes_change_no_value(reference, question, settings, monkeypatch):
    wanted = ask(reference, question, settings=settings)
    monkeypatch.setattr(rows, "GENES_PER_BLOCK", 7)
    for values in (1, 1000):
        monkeypatch.setattr(rows, "_VALUES_PER_BLOCK", values)
        assert_same(ask(reference, question, settings=settings), wanted)


@pytest.mark.parametrize(
    ("output_format", "sparse"),
    [(OutputFormat.H5AD, False), (OutputFormat.H5AD, True), (OutputFormat.ZARR, True)],
)
def test_a_written_answer_is_the_one_in_memory(
    reference, question, tmp_path, small_groups, output_format, sparse
):
    wanted = ask(reference, question)
    out = tmp_path / f"q{output_format.suffix}"
    engine = QueryEngine(reference, settings=SETTINGS)
    written = engine.query_to(out, question, output=OutputSettings(output_format, sparse))
    read = ad.read_h5ad if output_format is OutputFormat.H5AD else ad.read_zarr
    got = read(out)
    assert_same(got, wanted)
    assert isinstance(got.X, np.ndarray) is not sparse
    assert written.summary["patches"] == 64
    assert not work_path(out).exists()
    mine = {k: v for k, v in got.uns["stretrieve"].items() if k != "query_digest"}
    assert set(mine) == set(wanted.uns["stretrieve"]) - {"query_digest"}
    with pytest.raises(OutputExistsError, match="exists"):
        engine.query_to(out, question)


def test_an_answer_is_found_again_and_another_is_not_taken_for_it(
    reference, question, tmp_path, small_groups
):
    engine = QueryEngine(reference, settings=SETTINGS)
    out = tmp_path / "q.zarr"
    output = OutputSettings(OutputFormat.ZARR)
    first = engine.query_to(out, question, output=output, skip_finished=True)
    again = engine.query_to(out, question, output=output, skip_finished=True)
    assert (first.was_there, again.was_there) == (False, True)
    assert again.summary == first.summary
    other = dataclasses.replace(question, genes=["SIM-A1"])
    with pytest.raises(OutputExistsError):
        engine.query_to(out, other, output=output, skip_finished=True)
    assert engine.query_to(out, other, output=output, overwrite=True).summary["genes"] == 1


@pytest.mark.parametrize(
    ("settings", "sparse", "points"),
    [(SETTINGS, False, (5, 10, 11)), (BOTH, True, (4, 13)), (SMOOTH, False, (4, 13))],
    ids=["one-pass", "two-passes", "smooth"],
)
def test_a_query_that_died_goes_on_where_it_was(
    reference, question, tmp_path, small_groups, settings, sparse, points
):
    """Ended between any two writes, without any clean-up."""
    wanted = ask(reference, question, settings=settings)
    root, output = reference.layout.root, OutputSettings(sparse=sparse)
    for point in points:
        out = tmp_path / f"{point}.h5ad"
        code = run_child(root, out, question, settings, output, 16, point)
        assert code == CRASH_CODE, f"point {point}"
        engine = QueryEngine(reference, settings=settings)
        engine.query_to(out, question, output=output)
        assert_same(ad.read_h5ad(out), wanted)
        assert list(tmp_path.glob(".*")) == []


def test_sigkill_keeps_finished_groups(reference, question, tmp_path, small_groups, monkeypatch):
    wanted = ask(reference, question)
    out = tmp_path / "q.h5ad"
    arguments = (reference.layout.root, out, question, SETTINGS, OutputSettings(), 16)
    code = run_child(*arguments, kill_when=lambda: part_files(out))
    assert code in (-9, 0)
    if code == 0:
        pytest.skip("it was done before it could be killed")
    kept = {path: path.stat().st_mtime_ns for path in part_files(out)}
    read = []
    plain = patches._read_batch
    monkeypatch.setattr(patches, "_read_batch", lambda *a: (read.append(len(a[2])), plain(*a))[1])
    QueryEngine(reference, settings=SETTINGS).query_to(out, question)
    assert sum(read) == 64 - 16 * len(kept)
    assert_same(ad.read_h5ad(out), wanted)


def test_what_another_query_left_is_not_used(reference, question, tmp_path, small_groups):
    out = tmp_path / "q.h5ad"
    other = dataclasses.replace(question, genes=["SIM-A1", "SIM-B2"])
    code = run_child(reference.layout.root, out, other, SETTINGS, OutputSettings(), 16, 8)
    assert code == CRASH_CODE
    assert any(part_files(out))
    QueryEngine(reference, settings=SETTINGS).query_to(out, question)
    assert_same(ad.read_h5ad(out), ask(reference, question))


def fail_patches(monkeypatch, which):
    plain = patches._read_batch

    def read(slide, xy, rows, spec, workers):
        batch = plain(slide, xy, rows, spec, workers)
        batch.status[np.isin(rows, which)] = 2
        return batch

    monkeypatch.setattr(patches, "_read_batch", read)


@pytest.mark.parametrize("centring", [Centring.NONE, Centring.BOTH])
def test_unreadable_patches_stay_in_the_table_without_a_prediction(
    reference, question, small_groups, monkeypatch, centring
):
    settings = dataclasses.replace(SETTINGS, max_failed=0.5, centring=centring)
    fail_patches(monkeypatch, [3, 40])
    adata = ask(reference, question, settings=settings)
    assert list(np.flatnonzero(adata.obs["status"] == "failed")) == [3, 40]
    assert np.isnan(adata.X[[3, 40]]).all()
    assert (adata.obsm["stretrieve_neighbours"][3] == -1).all()
    assert adata.obsm["stretrieve_weights"][3].sum() == 0
    assert np.isfinite(np.delete(adata.X, [3, 40], axis=0)).all()
    assert adata.uns["stretrieve"]["patches"] == {"predicted": 62, "failed": 2}
    strict = dataclasses.replace(settings, max_failed=0.01)
    with pytest.raises(SlideError, match="2 of 64 patches unreadable"):
        ask(reference, question, settings=strict)


def test_a_group_of_which_nothing_could_be_read(reference, question, small_groups, monkeypatch):
    from stretrieve.slides import ReaderLimits

    fail_patches(monkeypatch, range(16, 32))
    monkeypatch.setattr(patches, "_TOLERATED", 64)
    assert ReaderLimits().max_failed < 0.25
    adata = ask(reference, question, settings=dataclasses.replace(SETTINGS, max_failed=0.5))
    assert (adata.obs["status"][16:32] == "failed").all()
    assert np.isfinite(adata.X[32:]).all()


def test_status_says_padded_and_out_of_distribution(reference, sections, tmp_path):
    from PIL import Image

    pixels = np.asarray(Image.open(sections[3].image)).copy()
    pixels[200:] = np.random.default_rng(0).integers(0, 2, (160, 360, 1)) * [20, 200, 30]
    Image.fromarray(pixels).save(tmp_path / "odd.png")
    xy = np.array([[2.0, 60.0], [100.0, 100.0], [200.0, 300.0]])
    spots = SpotPositions(np.array(["edge", "middle", "green"]), xy)
    adata = ask(reference, Question(tmp_path / "odd.png", mpp=5.0, spots=spots))
    assert adata.obs["status"]["green"] == "ood"
    assert adata.obs["status"]["middle"] == "ok"
    assert adata.obs["status"]["edge"] in ("padded", "ood")


def test_batches_halve_when_memory_runs_out_and_nothing_changes(
    reference, question, monkeypatch, caplog
):
    wanted = ask(reference, question)
    embedder = reference.embedder
    plain, seen = embedder.encode_once, []

    def encode(batch):
        seen.append(len(batch))
        if len(batch) > 16:
            np.empty((1 << 62,), dtype=np.uint8)  # the allocator itself refuses
        return plain(batch)

    monkeypatch.setattr(embedder, "encode_once", encode)
    settings = dataclasses.replace(SETTINGS, batch_size=64)
    assert_same(ask(reference, question, settings=settings), wanted)
    assert seen[:4] == [16, 16, 32, 16]  # three batches, of which one in halves
    assert "16 patches at a time" in caplog.text

    monkeypatch.setattr(embedder, "encode_once", lambda b: np.empty((1 << 62,), np.uint8))
    with pytest.raises(ResourceError, match="16 patches"):
        ask(reference, question, settings=settings)


def test_files_of_another_format_are_begun_again(question, monkeypatch):
    from stretrieve.query import question as module

    entry = dict.fromkeys(("id", "version", "content_digest"), "x")
    before = question.digest(entry, SETTINGS, ["A"])
    assert question.digest(entry, SETTINGS, ["A"]) == before
    monkeypatch.setattr(module, "_WORK_FORMAT", module._WORK_FORMAT + 1)
    assert question.digest(entry, SETTINGS, ["A"]) != before


def test_what_counts_as_out_of_memory():
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_only_the_genes_asked_for_are_kept(reference, question, monkeypatch):
    from stretrieve.reference import Reference

    asked = []
    plain = Reference.log_expression
    monkeypatch.setattr(
        Reference,
        "log_expression",
        lambda self, p, g=None: (asked.append((len(p), g)), plain(self, p, g))[1],
    )
    wanted = ask(reference, question)[:, ["SIM-A3", "SIM-B0"]]
    asked.clear()
    two = ask(reference, dataclasses.replace(question, genes=["SIM-A3", "SIM-B0"]))
    np.testing.assert_array_equal(two.X, wanted.X)
    assert all(genes == ["SIM-A3", "SIM-B0"] for _, genes in asked)
    assert sum(n for n, _ in asked) <= len(reference.spots)


def write_region(path, *corners):
    ring = [[float(x), float(y)] for x, y in corners]
    geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    path.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))
    return path


def test_a_region_bounds_the_grid(reference, question, tmp_path):
    engine = QueryEngine(reference, settings=SETTINGS)
    region = write_region(tmp_path / "r.geojson", (40, 40), (200, 40), (200, 360), (40, 360))
    whole = engine.query(question.slide, mpp=5.0).adata
    part = engine.query(question.slide, mpp=5.0, regions=region).adata
    assert 0 < part.n_obs < whole.n_obs
    x, y = part.obsm["spatial"].T
    assert ((x > 30) & (x < 210) & (y > 30)).all()
    assert part.obs["tissue_fraction"].median() == 1


def test_graph_embedders_see_the_whole_slide(sections, tmp_path, monkeypatch):
    """An embedder that looks at neighbours gives the same answer in one group or in many."""
    from stretrieve import BuildSettings, build_reference
    from stretrieve.embedders.colour import ColourEmbedder
    from tests.query.neighbourly import NeighbourlyEmbedder

    assert issubclass(NeighbourlyEmbedder, ColourEmbedder)
    reference = build_reference(
        sections[:2],
        tmp_path / "REF",
        settings=BuildSettings(
            embedder="neighbourly", embedder_config={"patch_px": 32, "side_um": 160.0}
        ),
    )
    section = sections[3]
    question = Question(section.image, mpp=5.0, spots=SpotPositions(section.spot_ids, section.xy))
    wanted = ask(reference, question)
    monkeypatch.setattr(groups, "MAX_ROWS", 16)
    assert_same(ask(reference, question), wanted)
    out = tmp_path / "q.h5ad"
    QueryEngine(reference, settings=SETTINGS).query_to(out, question)
    assert_same(ad.read_h5ad(out), wanted)


@pytest.fixture(scope="module")
def trained(sections, tmp_path_factory):
    """A reference whose embedder is a network that was trained for an epoch from seeded weights."""
    from stretrieve import BuildSettings, build_reference
    from stretrieve.training import TrainSettings

    config = {
        "encoder": {"backbone": "mobilenetv2_100"},
        "patch_px": 64,
        "side_um": 320.0,
        "backbone_stages": 1,
    }
    settings = BuildSettings(
        embedder="bleep", embedder_config=config, train=TrainSettings(epochs=1, batch_size=32)
    )
    return build_reference(sections[:2], tmp_path_factory.mktemp("net") / "REF", settings=settings)


def test_a_network_predicts_the_same_in_batches_of_any_size(trained, sections):
    import torch

    section = sections[3]
    some = slice(33)  # one more than batches hold: alone it rounds differently
    spots = SpotPositions(section.spot_ids[some], section.xy[some])
    question = Question(section.image, mpp=5.0, spots=spots)
    wanted = ask(trained, question)
    threads = torch.get_num_threads()
    try:
        for batch_size, workers, n in ((64, 1, 1), (1, 2, 2), (100, 1, 2)):
            torch.set_num_threads(n)
            settings = dataclasses.replace(SETTINGS, batch_size=batch_size, workers=workers)
            assert_same(ask(trained, question, settings=settings), wanted)
    finally:
        torch.set_num_threads(threads)


def test_grouping_covers_every_row_once():
    for n_rows, n_genes in ((1, 1), (512, 40), (513, 40), (5000, 20_000), (5000, 10**7)):
        grouping = groups.Grouping.of(n_rows, n_genes)
        rows = [np.arange(n_rows)[grouping.slice(i)] for i in range(len(grouping))]
        np.testing.assert_array_equal(np.concatenate(rows), np.arange(n_rows))
        assert 16 <= grouping.rows <= 512
        for batch_size in (1, 7, 64, 100, 4096):
            assert grouping.rows % grouping.batch_rows(batch_size) == 0
    assert PatchSpec.single(32, side_um=160).n_neighbors == 0


def test_a_small_slide_has_several_groups():
    """The last one is predicted when there is nothing left to embed."""
    rows = [groups.Grouping.of(n, 17_000).rows for n in (10, 200, 828, 5000)]
    assert rows == [64, 64, 128, 256]


@pytest.mark.parametrize("settings", [SETTINGS, SMOOTH], ids=["plain", "smooth"])
def test_pictures_of_the_slide_are_read_once_and_not_first(
    reference, question, small_groups, monkeypatch, settings
):
    events = []
    thumbnail, predict = Slide.thumbnail, stream.predict_group
    monkeypatch.setattr(Slide, "thumbnail", lambda *a: events.append("picture") or thumbnail(*a))
    monkeypatch.setattr(stream, "predict_group", lambda *a: events.append("group") or predict(*a))
    found = ask(reference, question, settings=settings)
    assert events == ["group", "picture", "group", "group", "group"]
    images = found.uns["spatial"]["image"]["images"]
    with open_slide(question.slide, pixel_size=question.pixel_size) as slide:
        np.testing.assert_array_equal(images["hires"], slide.thumbnail(2000))
    np.testing.assert_array_equal(images["lowres"], images["hires"])  # it is smaller than both


def test_pictures_that_cannot_be_read_fail_the_query_and_lose_nothing(
    reference, question, tmp_path, small_groups, monkeypatch
):
    def fail(*_):
        raise SlideError("no overview")

    out, engine = tmp_path / "q.h5ad", QueryEngine(reference, settings=SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(Slide, "thumbnail", fail)
        with pytest.raises(SlideError, match="no overview"):
            engine.query_to(out, question)
    assert not out.exists()
    assert part_files(out)
    engine.query_to(out, question)
    assert_same(ad.read_h5ad(out), ask(reference, question))


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_all_but_the_network_steps_back(reference, question, monkeypatch):
    seen = {}

    def watched(module, name):
        work = getattr(module, name)

        def watch(*args, **options):
            seen[name] = os.getpriority(os.PRIO_PROCESS, 0)
            return work(*args, **options)

        monkeypatch.setattr(module, name, watch)

    behind = ((patches, "_read_batch"), (encode, "looks_of_patches"), (stream, "predict_group"))
    for module, name in behind:
        watched(module, name)
    watched(type(reference.embedder), "encode_once")
    ask(reference, question)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert seen.pop("encode_once") == before
    assert seen == {name: max(10, before) for _, name in behind}
