"""Every kind of bad input of the first path: one line, the right exit code, nothing half-written."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.tissue import COLUMNS, write_cohort, write_section, write_sheet

FAST = ("--embedder", "colour", "--patch-px", "32", "--patch-um", "160", "--quiet")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder)
    return folder


@pytest.fixture
def sheet(cohort, tmp_path):
    """A private copy of a good cohort that a test may break."""
    shutil.copytree(cohort, tmp_path / "cohort")
    return tmp_path / "cohort" / "sheet.csv"


@pytest.fixture(scope="module")
def reference(cohort, tmp_path_factory):
    from stretrieve import BuildSettings, build_reference

    out = tmp_path_factory.mktemp("ref") / "REF"
    settings = BuildSettings(embedder="colour", embedder_config={"patch_px": 32, "side_um": 160.0})
    build_reference(cohort / "sheet.csv", out, settings=settings)
    return out


def assert_refused(result, *, code, words, nothing_at=None):
    got, out, err = result
    assert got == code, err
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    for word in words:
        assert word in lines[0]
    if nothing_at is not None:
        assert not nothing_at.exists()
        assert not list(nothing_at.parent.glob(f"{nothing_at.name}*"))


def edit(sheet, change):
    with sheet.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with sheet.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_missing_sheet(cli, tmp_path):
    out = tmp_path / "REF"
    result = cli("build-ref", tmp_path / "none.csv", "--out", out, *FAST)
    assert_refused(result, code=3, words=["samplesheet", "none.csv"], nothing_at=out)


def test_missing_file_named_in_the_sheet(cli, sheet, tmp_path):
    (sheet.parent / "s1" / "counts.tsv").unlink()
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["counts.tsv"], nothing_at=out)


def test_unknown_column(cli, sheet, tmp_path):
    sheet.write_text(sheet.read_text().replace("patient", "pateint", 1))
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["pateint", "patient"], nothing_at=out)


def test_duplicate_section(cli, sheet, tmp_path):
    edit(sheet, lambda rows: rows[1].update(section=rows[0]["section"]))
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["s0"], nothing_at=out)


def test_spots_outside_the_image(cli, sheet, tmp_path):
    path = sheet.parent / "s1" / "image.png"
    Image.open(path).crop((0, 0, 200, 200)).save(path)
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["outside", "200"], nothing_at=out)


def test_counts_and_spots_of_different_sections(cli, sheet, tmp_path):
    spots = sheet.parent / "s1" / "spots.tsv"
    header, *lines = spots.read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    moved = ["\t".join([f"{int(x) + 40}", y, f"{int(nx) + 40}", *rest]) for x, y, nx, *rest in rows]
    spots.write_text("\n".join([header, *moved]) + "\n")
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["s1"], nothing_at=out)


def test_image_that_is_not_an_image(cli, sheet, tmp_path):
    (sheet.parent / "s1" / "image.png").write_text("not an image")
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, *FAST)
    assert_refused(result, code=3, words=["image.png"], nothing_at=out)


def test_output_already_holds_a_reference(cli, sheet, reference):
    before = (reference / "manifest.json").read_bytes()
    result = cli("build-ref", sheet, "--out", reference, *FAST)
    assert_refused(result, code=3, words=["REF", "exists"])
    assert (reference / "manifest.json").read_bytes() == before


def test_unknown_setting_and_unknown_embedder(cli, sheet, tmp_path):
    out = tmp_path / "REF"
    result = cli("build-ref", sheet, "--out", out, "--set", "embeder=colour")
    assert_refused(result, code=2, words=["embeder", "did you mean 'embedder'"], nothing_at=out)
    result = cli("build-ref", sheet, "--out", out, "--embedder", "blep")
    assert_refused(result, code=2, words=["blep", "'bleep'"], nothing_at=out)


def test_slide_without_mpp(cli, cohort, reference, tmp_path):
    out = tmp_path / "q.h5ad"
    result = cli("query", cohort / "s0" / "image.png", "--ref", reference, "--out", out, "-q")
    assert_refused(result, code=3, words=["mpp", "--mpp"], nothing_at=out)


@pytest.mark.parametrize("value", ["0", "-1", "60", "nan"])
def test_nonsense_mpp(cli, cohort, reference, tmp_path, value):
    out = tmp_path / "q.h5ad"
    slide = cohort / "s0" / "image.png"
    result = cli("query", slide, "--ref", reference, "--out", out, "--mpp", value, "-q")
    assert_refused(result, code=3, words=["mpp"], nothing_at=out)


def test_missing_slide_and_slide_that_is_none(cli, reference, tmp_path):
    out = tmp_path / "q.h5ad"
    result = cli("query", tmp_path / "none.svs", "--ref", reference, "--out", out, "-q")
    assert_refused(result, code=3, words=["none.svs"], nothing_at=out)
    (tmp_path / "bad.svs").write_bytes(b"II*\0" + bytes(100))
    result = cli("query", tmp_path / "bad.svs", "--ref", reference, "--out", out, "-q")
    assert_refused(result, code=3, words=["bad.svs"], nothing_at=out)


def test_one_line_stands_alone_whatever_went_before(reference, tmp_path):
    """A large picture is announced with a warning; when it turns out to be broken, only that is said."""
    slide, out = tmp_path / "big.jpg", tmp_path / "q.h5ad"
    picture = np.random.default_rng(0).integers(0, 255, (4200, 4000, 1), np.uint8)
    Image.fromarray(picture.repeat(3, axis=2)).save(slide, quality=30)
    slide.write_bytes(slide.read_bytes()[:200_000])
    command = [sys.executable, "-m", "stretrieve", "query", slide, "--ref", reference, "--out", out]
    done = subprocess.run(
        [*map(str, command), "--mpp", "0.5"], capture_output=True, text=True, timeout=120
    )
    assert_refused((done.returncode, done.stdout, done.stderr), code=3, words=["big.jpg", "truncated"],
                   nothing_at=out)  # fmt: skip
    assert len(done.stderr.splitlines()) == 1


def test_warnings_held_back_appear_when_all_went_well(caplog):
    import logging

    from stretrieve.cli._warnings import held_warnings
    from stretrieve.errors import SlideError

    log = logging.getLogger("stretrieve.slides.base")
    with held_warnings():
        log.warning("slow")
        assert not caplog.records
    assert caplog.messages == ["slow"]
    with pytest.raises(SlideError), held_warnings():
        log.warning("dropped")
        raise SlideError("broken")
    with pytest.raises(ValueError, match="bug"), held_warnings():
        log.warning("kept")
        raise ValueError("bug")
    assert caplog.messages == ["slow", "kept"]


def test_blank_slide(cli, reference, tmp_path):
    Image.fromarray(np.full((600, 600, 3), 255, np.uint8)).save(tmp_path / "blank.png")
    out = tmp_path / "q.h5ad"
    result = cli(
        "query", tmp_path / "blank.png", "--ref", reference, "--out", out, "--mpp", "5", "-q"
    )
    assert_refused(result, code=3, words=["tissue"], nothing_at=out)


def test_no_reference_there(cli, cohort, tmp_path):
    out = tmp_path / "q.h5ad"
    slide = cohort / "s0" / "image.png"
    result = cli("query", slide, "--ref", tmp_path / "none", "--out", out, "--mpp", "5", "-q")
    assert_refused(result, code=3, words=["none"], nothing_at=out)


def test_existing_output_is_kept(cli, cohort, reference, tmp_path):
    out = tmp_path / "q.h5ad"
    out.write_text("precious")
    slide = cohort / "s0" / "image.png"
    result = cli("query", slide, "--ref", reference, "--out", out, "--mpp", "5", "-q")
    assert_refused(result, code=3, words=["exists", "--overwrite"])
    assert out.read_text() == "precious"


def test_spot_file_of_another_image(cli, cohort, reference, tmp_path):
    spots = tmp_path / "spots.csv"
    spots.write_text("spot_id,pixel_x,pixel_y\na,10,10\nb,9000,10\n")
    out = tmp_path / "q.h5ad"
    slide = cohort / "s0" / "image.png"
    result = cli(
        "query", slide, "--ref", reference, "--out", out, "--mpp", "5", "--spots", spots, "-q"
    )
    assert_refused(result, code=3, words=["outside", "b at (9000, 10)"], nothing_at=out)


def test_patient_and_filters_that_leave_nothing(cli, cohort, reference, tmp_path):
    out = tmp_path / "q.h5ad"
    common = ("query", cohort / "s0" / "image.png", "--ref", reference, "--out", out, "--mpp", "5")
    result = cli(*common, "--organ", "liver", "-q")
    assert_refused(result, code=3, words=["organ 'liver'"], nothing_at=out)
    result = cli(*common, "--genes", "SIM-A1,NOPE", "-q")
    assert_refused(result, code=3, words=["NOPE"], nothing_at=out)


def test_damaged_manifest(cli, cohort, reference, tmp_path):
    broken = tmp_path / "REF"
    shutil.copytree(reference, broken)
    (broken / "manifest.json").write_text("{")
    out = tmp_path / "q.h5ad"
    slide = cohort / "s0" / "image.png"
    result = cli("query", slide, "--ref", broken, "--out", out, "--mpp", "5", "-q")
    assert_refused(result, code=5, words=["manifest"], nothing_at=out)


def test_damaged_weights_are_noticed(cli, cohort, reference, tmp_path):
    broken = tmp_path / "REF"
    shutil.copytree(reference, broken)
    (weights,) = (broken / "embedder").glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    out = tmp_path / "q.h5ad"
    slide = cohort / "s0" / "image.png"
    result = cli("query", slide, "--ref", broken, "--out", out, "--mpp", "5", "-q")
    assert_refused(result, code=5, words=["model.safetensors"], nothing_at=out)


def test_usage_errors_are_one_line(cli):
    assert_refused(cli("query", "--nonsense"), code=2, words=["--nonsense"])
    assert_refused(cli("build-ref"), code=2, words=["sheet"])


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_build_leaves_no_reference_and_resumes(cli, sheet, tmp_path, kill):
    out = tmp_path / "REF"
    command = [sys.executable, "-m", "stretrieve", "build-ref", sheet, "--out", out, *FAST]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if list(tmp_path.glob(".*building*")):
            process.send_signal(kill)
            break
        time.sleep(0.002)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if kill == signal.SIGINT else -kill), err
    assert "Traceback" not in err
    assert not out.exists()
    assert_refused(cli("build-ref", sheet, "--out", out, *FAST), code=3, words=["--resume"])
    code, printed, err = cli("build-ref", sheet, "--out", out, *FAST, "--resume", "--json")
    assert code == 0, err
    assert '"spots": 192' in printed
    assert (out / "manifest.json").is_file()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


_INTERRUPTED = """
import sys
from stretrieve.cli._errors import run

def raised():
    exec("raise KeyboardInterrupt")

def caught():  # as typer does
    try:
        raised()
    except KeyboardInterrupt:
        return 130

sys.exit(run({command}, debug=False))
"""


@pytest.mark.parametrize("command", ["raised", "caught"])
def test_an_interrupt_inside_a_string_of_source_keeps_the_exit_code(tmp_path, command):
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED.format(command=command))
    command = [sys.executable, "-m", "interrupted"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 130, process.stderr


_LATE_INTERRUPTS = """
import atexit, os, signal, sys, weakref
from stretrieve.cli import app

class Thing: ...

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

def command():
    thing = Thing()
    reference = weakref.ref(thing, interrupt)
    del thing
    import time; time.sleep(20)

when = sys.argv.pop()
atexit.register(interrupt)
app.run = lambda *_, **__: 4
if when == "in a callback":
    from stretrieve.cli._errors import run
    app.run = lambda *_, **options: run(command, **options)
app.main()
"""


@pytest.mark.parametrize(("when", "code"), [("in a callback", 130), ("at shutdown", 4)])
def test_an_interrupt_is_neither_lost_nor_heard_too_late(tmp_path, when, code):
    (tmp_path / "late.py").write_text(_LATE_INTERRUPTS)
    command = [sys.executable, "-m", "late", when]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr


def test_two_faults_in_one_sheet_are_both_named(cli, tmp_path):
    files = write_section(tmp_path / "s0", seed=0)
    row = dict.fromkeys(COLUMNS, "") | files | {"section": "s0", "format": "st"}
    bad = write_sheet(
        tmp_path / "sheet.csv", [row | {"mpp": "x"}, row | {"section": "s1", "counts": "nope.tsv"}]
    )
    result = cli("build-ref", bad, "--out", tmp_path / "REF", *FAST)
    assert_refused(result, code=3, words=["mpp", "nope.tsv"], nothing_at=tmp_path / "REF")
