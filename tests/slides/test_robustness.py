"""Bounded samples of the long runs in benchmarks/, and what an import may cost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HEAVY = (
    "torch",
    "lancedb",
    "pandas",
    "openslide",
    "skimage",
    "shapely",
    "scipy",
    "PIL",
    "tifffile",
)


def run_benchmark(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = BENCHMARKS / name
    if not script.is_file():
        pytest.skip("no benchmarks beside the tests")
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], capture_output=True, text=True, timeout=280
    )


def test_damaged_slides_give_clear_errors_only() -> None:
    done = run_benchmark("fuzz_slides.py", "--inputs", 40, "--seed", 7)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "crash 0, hang 0, traceback 0, unclear 0" in done.stdout
    counts = {
        line.split(maxsplit=1)[1]: int(line.split()[0]) for line in done.stdout.splitlines()[:-2]
    }
    assert sum(counts.values()) == 40
    assert counts["SlideError"] > 10
    assert counts["read"] > 3


def test_many_slides_leave_nothing_behind() -> None:
    done = run_benchmark("slide_soak.py", "--slides", 12)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_fixed_encoder_sees_the_same_tissue_at_two_resolutions(shared_data: Path) -> None:
    """A real slide at 0.25 and 0.5 µm/px, and at its own resolution and half of it."""
    slide = shared_data / "data/wsi/aperio/CMU-1-Small-Region.svs"
    weights = shared_data / "weights/mobilenetv2_imagenet.safetensors"
    done = run_benchmark("slide_resolution.py", slide, "--weights", weights)
    assert done.returncode == 0, done.stdout + done.stderr
    same = re.findall(r"median cosine (0\.\d+), .* other places (0\.\d+)", done.stdout)
    assert len(same) == 3
    assert all(float(here) >= 0.98 for here, _ in same[:2])
    assert all(float(there) < 0.8 for _, there in same)


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import stretrieve.slides",
        "from stretrieve.slides import open_slide, read_patches, patch_grid, tissue_mask",
    ],
)
def test_importing_slides_loads_no_image_library(code: str) -> None:
    assert loaded_by(code).isdisjoint(HEAVY)


def test_a_reader_process_loads_its_decoder_only() -> None:
    loaded = loaded_by("import stretrieve.slides.worker, stretrieve.slides.readers.openslide")
    assert loaded.isdisjoint(set(HEAVY) - {"openslide", "PIL"})
    assert "numpy" not in loaded


def test_what_a_scanner_wrote_about_people_stays_in_the_file(shared_data: Path) -> None:
    """Of all properties only sizes, resolution and magnification leave the reader process."""
    script = (
        "import sys\n"
        "from stretrieve.slides import open_slide\n"
        "slide = open_slide(sys.argv[1])\n"
        "print(slide, slide.pool.header)\n"
    )
    path = shared_data / "data/wsi/aperio/CMU-1-Small-Region.svs"
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for secret in ("CPAPERIOCS", "12/29/09", "b414003d-95c6-48b0-9369-8010ed517ba7"):
        assert secret.encode() in path.read_bytes()
        assert secret not in done.stdout + done.stderr
