"""Sheets of slides, plans, and QuPath objects."""

import dataclasses
import json
import threading
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
from PIL import Image

from stretrieve import QueryEngine, QuerySettings
from stretrieve.errors import GenePanelError, InputError, OutputExistsError, SheetError
from stretrieve.query import OutputSettings, Question, stream
from stretrieve.query import plan as plan_module
from stretrieve.query.memory import ThriftyEncoder
from stretrieve.query.output import Pictures
from stretrieve.query.plan import plan_query
from stretrieve.query.question import read_genes
from stretrieve.query.sheet import Outcome, plan_sheet, query_sheet, read_slide_sheet
from stretrieve.query.write import OutputFormat
from tests.query.interrupted import CONTEXT

SETTINGS = QuerySettings(top_k=12, batch_size=16)


@pytest.fixture(scope="module")
def slides(sections, tmp_path_factory):
    """A sheet with two good slides, one without tissue, one broken, one missing, one left out."""
    folder = tmp_path_factory.mktemp("slides")
    for name in ("a", "b", "out"):
        (folder / f"{name}.png").write_bytes(sections[3].image.read_bytes())
    Image.fromarray(np.full((360, 360, 3), 255, np.uint8)).save(folder / "blank.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    lines = ["slide,mpp,patient,exclude"]
    lines += [f"{name}.png,5,P9," for name in ("a", "broken", "none", "blank", "b")]
    lines += ['out.png,5,,"scanned twice"', "a.png,,,no"]
    (folder / "sheet.csv").write_text("\n".join(lines[:-1]) + "\n")
    return folder / "sheet.csv"


@pytest.fixture(scope="module")
def engine(reference):
    return QueryEngine(reference, settings=SETTINGS)


def test_every_slide_ends_in_one_of_three_ways_and_no_good_one_is_lost(engine, slides, tmp_path):
    entries = read_slide_sheet(slides)
    outcomes = query_sheet(engine, entries, tmp_path, genes=["SIM-A1", "SIM-B1"])
    ends = {outcome.name: outcome.outcome.value for outcome in outcomes}
    assert ends == {
        "a": "done", "broken": "failed", "none": "failed", "blank": "excluded", "b": "done",
        "out": "excluded",
    }  # fmt: skip
    reasons = {outcome.name: outcome.reason for outcome in outcomes}
    assert "no such file" in reasons["none"]
    assert "tissue" in reasons["blank"]
    assert reasons["out"] == "scanned twice"
    assert ad.read_h5ad(tmp_path / "b.h5ad").n_vars == 2
    stored = json.loads((tmp_path / "slides.json").read_text())
    assert stored == json.loads(json.dumps([outcome.to_dict() for outcome in outcomes]))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.h5ad")}
    assert len(written) == 2

    (slides.parent / "none.png").write_bytes((slides.parent / "a.png").read_bytes())
    again = query_sheet(engine, entries, tmp_path, genes=["SIM-A1", "SIM-B1"])
    (slides.parent / "none.png").unlink()
    assert [o.name for o in again if o.outcome is Outcome.DONE and not o.was_there] == ["none"]
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    assert [o.summary for o in again if o.name == "a"] == [
        o.summary for o in outcomes if o.name == "a"
    ]
    other = query_sheet(engine, entries[:1], tmp_path, genes=["SIM-A2"])
    assert (other[0].outcome, "exists" in other[0].reason) == (Outcome.FAILED, True)


def test_a_gene_nobody_has_stops_the_sheet_before_any_slide(engine, slides, tmp_path):
    with pytest.raises(GenePanelError, match="NOPE"):
        query_sheet(engine, read_slide_sheet(slides), tmp_path, genes=["NOPE"])
    assert not list(tmp_path.iterdir())


def test_an_error_of_ours_costs_one_slide(engine, slides, tmp_path, monkeypatch):
    plain = engine.query_to
    monkeypatch.setattr(
        engine, "query_to", lambda out, *a, **k: 1 / 0 if out.stem == "a" else plain(out, *a, **k)
    )
    entries = [e for e in read_slide_sheet(slides) if e.name in "ab"]
    outcomes = query_sheet(engine, entries, tmp_path)
    assert [o.outcome.value for o in outcomes] == ["failed", "done"]
    assert "ZeroDivisionError" in outcomes[0].reason


def test_spots_and_regions_of_a_sheet(engine, slides, sections, tmp_path):
    names, xy = sections[3].spot_ids[:5], sections[3].xy[:5]
    rows = [f"{n},{x},{y}" for n, (x, y) in zip(names, xy, strict=True)]
    (tmp_path / "spots.csv").write_text("\n".join(["spot_id,pixel_x,pixel_y", *rows]) + "\n")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"slide;mpp;spots;name\n{slides.parent / 'a.png'};5;spots.csv;five\n")
    (outcome,) = query_sheet(engine, read_slide_sheet(sheet), tmp_path)
    assert outcome.reason == ""
    assert list(ad.read_h5ad(tmp_path / "five.h5ad").obs_names) == list(names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slides\na.png\n", ["unknown column 'slides'", "did you mean 'slide'"]),
        ("slide,mpp\na.png,-1\nb.png,x\n", ["line 2", "line 3"]),
        ("slide\n", ["no slide is listed"]),
        ("slide\nx/a.png\ny/a.png\n", ["'a' is listed 2 times"]),
        ("slide,name\na.png,../../x\n", ["line 2"]),
        ("slide\na.png,b\n", ["2 cells, expected 1"]),
        ("slide,mpp\n,1\n", ["slide is empty"]),
        ("", ["column 'slide' is missing"]),
    ],
)
def test_faults_of_a_sheet_are_told_at_once(tmp_path, text, words):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(SheetError) as caught:
        read_slide_sheet(tmp_path / "s.csv")
    assert all(word in str(caught.value) for word in words), caught.value


def test_genes_from_text_or_file(tmp_path):
    assert read_genes("A, B,,C") == ["A", "B", "C"]
    (tmp_path / "g.txt").write_text("# mine\nA\n\nB\n")
    assert read_genes(str(tmp_path / "g.txt")) == ["A", "B"]
    with pytest.raises(InputError, match="genes"):
        read_genes(" , ")


def _measure(kind, root, slide, out, queue):
    import resource

    from stretrieve.reference import Reference

    engine = QueryEngine(
        Reference.open(root), settings=dataclasses.replace(SETTINGS, batch_size=64)
    )
    question = Question(slide, mpp=5.0)
    plan = None
    if kind == "plan":
        plan = plan_query(engine, question)
    else:
        engine.query_to(out, question)
    peaks = [resource.getrusage(who).ru_maxrss for who in (0, -1)]
    queue.put((plan, sum(peaks) * 1024))


@pytest.mark.parametrize("times", [1, 6])
def test_a_plan_foretells_patches_bytes_and_memory(reference, sections, tmp_path, times):
    """Each in a process of its own, so that peaks are their own."""
    picture = np.tile(np.asarray(Image.open(sections[3].image)), (times, times, 1))
    slide, out = tmp_path / "slide.png", tmp_path / "q.h5ad"
    Image.fromarray(picture).save(slide)
    results = {}
    for kind in ("plan", "query"):
        queue = CONTEXT.Queue()
        process = CONTEXT.Process(
            target=_measure, args=(kind, reference.layout.root, slide, out, queue)
        )
        process.start()
        results[kind] = queue.get(timeout=120)
        process.join(30)
        assert kind == "query" or sorted(p.name for p in tmp_path.iterdir()) == ["slide.png"]
    plan, peak = results["plan"][0], results["query"][1]
    answer = ad.read_h5ad(out)
    assert (plan.patches, plan.genes) == answer.shape
    assert plan.output_bytes == pytest.approx(out.stat().st_size, rel=0.25)
    assert plan.memory_bytes == pytest.approx(peak, rel=0.25)
    assert plan.seconds > 0


@pytest.fixture
def costs(monkeypatch):
    """Let work take time of a plan's clock, which nothing else moves."""
    now, lock = [0.0], threading.Lock()
    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def cost(owner, name, seconds):
        work = getattr(owner, name)

        def working(*arguments, **options):
            with lock:
                now[0] += seconds(*arguments)
            return work(*arguments, **options)

        monkeypatch.setattr(owner, name, working)

    return cost


@pytest.fixture(scope="module")
def large_slide(sections, tmp_path_factory):
    path = tmp_path_factory.mktemp("large") / "slide.png"
    picture = np.tile(np.asarray(Image.open(sections[3].image)), (3, 3, 1))
    Image.fromarray(picture).save(path)
    return Question(path, mpp=5.0)


def plan_of(reference, question, **settings):
    engine = QueryEngine(reference, settings=dataclasses.replace(SETTINGS, **settings))
    plan = plan_query(engine, question)
    assert plan.patches > 1000  # many more than the pilot's
    return plan


@pytest.mark.parametrize(
    ("centring", "embed_s", "predict_s"), [("none", 3.0, 0.0), ("both", 3.0, 2.0)]
)
def test_a_plan_counts_embedding_and_predicting(
    reference, large_slide, costs, centring, embed_s, predict_s
):
    costs(ThriftyEncoder, "__call__", lambda _, batch: embed_s * len(batch))
    costs(stream, "predict_group", lambda _, group, *__: predict_s * len(group.status))
    plan = plan_of(reference, large_slide, centring=centring)
    assert plan.seconds == pytest.approx(plan.patches * (embed_s + predict_s), rel=0.01)


@pytest.mark.usefixtures("costs")  # nothing else takes time
@pytest.mark.parametrize(
    ("centring", "paces", "each_s"),
    [("none", (1.0, 2.0), 2.0), ("none", (2.0, 1.0), 2.0), ("both", (2.0, 1.0), 3.0)],
)
def test_a_plan_goes_at_the_pace_of_the_slower_or_of_both(
    reference, large_slide, monkeypatch, centring, paces, each_s
):
    """Embedding and predicting; one after the other where the whole slide has to be seen."""
    taken = iter(paces)
    monkeypatch.setattr(plan_module._Clock, "pace", lambda *_: next(taken))
    plan = plan_of(reference, large_slide, centring=centring)
    assert plan.seconds == pytest.approx((plan.patches - 128) * each_s, rel=0.01)


def test_a_plan_does_not_count_on_what_was_decoded_ahead(reference, large_slide, costs):
    done = iter([0.0, 0.0, 0.0])
    costs(ThriftyEncoder, "__call__", lambda _, batch: next(done, 1.0 * len(batch)))
    plan = plan_of(reference, large_slide)
    assert plan.seconds == pytest.approx(plan.patches - 48, rel=0.01)


def test_a_plan_counts_pictures_once_and_what_is_kept_of_all_patches(reference, large_slide, costs):
    plain = plan_of(reference, large_slide)
    costs(Pictures, "read", lambda _: 500.0)
    plan = plan_of(reference, large_slide, centring="both")
    assert plan.seconds == pytest.approx(500, rel=0.01)
    dim = reference.embedder.dim
    assert plan.work_bytes - plain.work_bytes > 0.9 * 4 * dim * plan.patches


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_the_pace_of_what_comes_in_turns(monkeypatch, lanes):
    times = iter([10.0 * (1 + i // lanes) for i in range(plan_module._PILOT_TURNS * max(lanes, 2))])
    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=times.__next__))
    clock = plan_module._Clock()
    for _ in range(plan_module._PILOT_TURNS * max(lanes, 2)):
        clock.advance(16)
    assert clock.pace(lanes) == pytest.approx(10 / (16 * lanes))


def test_a_pilot_is_long_enough_for_every_process(reference, large_slide, monkeypatch):
    tried, run = [], plan_module.run
    monkeypatch.setattr(
        plan_module,
        "run",
        lambda job, *a, **b: tried.append(len(job.positions)) or run(job, *a, **b),
    )
    for workers in (1, 2, 4):
        plan_of(reference, large_slide, workers=workers)
    assert tried == [128, 128, 256]


def test_a_plan_of_a_sheet(engine, slides):
    plans = {plan["name"]: plan for plan in plan_sheet(engine, read_slide_sheet(slides))}
    assert plans["a"]["outcome"] == "planned"
    assert plans["a"]["patches"] > 0
    assert plans["blank"]["outcome"] == plans["out"]["outcome"] == "excluded"
    assert plans["broken"]["outcome"] == "failed"


def test_qupath_objects_lie_on_the_patches(reference, sections, tmp_path):
    engine = QueryEngine(reference, settings=SETTINGS)
    result = engine.query(sections[3].image, mpp=5.0)
    path = result.to_geojson(tmp_path / "q.geojson", genes=["SIM-A1", "SIM-B2"])
    data = json.loads(path.read_text())
    assert len(data["features"]) == result.adata.n_obs
    first = data["features"][0]
    ring = np.array(first["geometry"]["coordinates"][0])
    np.testing.assert_allclose(ring[0], ring[-1])
    centre = result.adata.obsm["spatial"][0]
    np.testing.assert_allclose([ring.min(axis=0), ring.max(axis=0)], [centre - 16, centre + 16])
    properties = first["properties"]
    assert properties["objectType"] == "detection"
    assert properties["classification"]["name"] == result.adata.obs["status"].iloc[0]
    value = result.adata[:, "SIM-B2"].X[0, 0]
    assert properties["measurements"]["SIM-B2"] == pytest.approx(value, abs=1e-5)
    assert {"SIM-A1 spread", "ood_score"} <= set(properties["measurements"])
    with pytest.raises(OutputExistsError):
        result.to_geojson(path)
    with pytest.raises(GenePanelError, match="NOPE"):
        result.to_geojson(tmp_path / "x.geojson", genes=["NOPE"])


@pytest.mark.parametrize(
    "output",
    [OutputSettings(), OutputSettings(sparse=True), OutputSettings(OutputFormat.ZARR)],
    ids=["dense", "sparse", "zarr"],
)
def test_qupath_objects_from_a_written_answer(reference, sections, tmp_path, output):
    from stretrieve.query.export import export_geojson, open_answer

    engine = QueryEngine(reference, settings=SETTINGS)
    result = engine.query(sections[3].image, mpp=5.0)
    result.to_geojson(tmp_path / "a.geojson", objects="annotation")
    written = engine.query_to(
        tmp_path / f"q{output.format.suffix}", Question(sections[3].image, mpp=5.0), output=output
    )
    with open_answer(written.path) as answer:
        export_geojson(answer, tmp_path / "b.geojson", objects="annotation")
    assert (tmp_path / "a.geojson").read_text() == (tmp_path / "b.geojson").read_text()
    properties = json.loads((tmp_path / "b.geojson").read_text())["features"][0]["properties"]
    assert properties["objectType"] == "annotation"
    assert len(properties["measurements"]) == 2 * 20 + 4
