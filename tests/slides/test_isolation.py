"""Files that crash, hang or poison a reader cost themselves only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile

from stretrieve.errors import SlideError
from stretrieve.slides import PatchStatus, ReaderLimits, open_slide, read_patches
from stretrieve.slides.process import DeadReaderError, ReaderProcess
from stretrieve.specs import PatchSpec, PatchView
from tests.slides.pictures import tissue_picture, write_pyramid

SPEC = PatchSpec((PatchView(32, 0.5),))
QUICK = ReaderLimits(open_timeout_s=5, read_timeout_s=1.5)
CENTRES = np.stack(np.meshgrid(np.arange(32, 600, 64), np.arange(32, 400, 64)), -1).reshape(-1, 2)


def statuses(slide, xy=CENTRES, **options) -> np.ndarray:
    return np.concatenate([batch.status for batch in read_patches(slide, xy, SPEC, **options)])


def one_line(error: BaseException) -> str:
    assert len(str(error).splitlines()) == 1, str(error)
    return str(error)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_costs_one_patch(pyramid: Path, misbehave, workers: int) -> None:
    misbehave(read="if (x, y) == (16 + 64 * 3, 16 + 64): os.abort()")
    with open_slide(pyramid) as slide:
        batches = list(read_patches(slide, CENTRES, SPEC, batch_size=16, workers=workers))
        status = np.concatenate([batch.status for batch in batches])
        bad = np.flatnonzero((CENTRES == (32 + 64 * 3, 32 + 64)).all(axis=1))
        np.testing.assert_array_equal(np.flatnonzero(status), bad)
        assert status[bad] == PatchStatus.FAILED
        views = np.concatenate([batch.views[0] for batch in batches])
        assert (views[bad] == 255).all()
        after = slide.read_region(tuple(CENTRES[bad[0] + 1] - 16), 0, (32, 32))
        np.testing.assert_array_equal(views[bad[0] + 1], after)


def test_a_crash_that_does_not_repeat_costs_nothing(pyramid: Path, misbehave, tmp_path) -> None:
    mark = tmp_path / "crashed"
    misbehave(
        read=f"mark = Path({str(mark)!r}); "
        "first = not mark.exists() and x > 300; mark.touch() if first else None; "
        "first and os.kill(os.getpid(), 11)"
    )
    with open_slide(pyramid) as slide:
        assert not statuses(slide).any()
    assert mark.exists()


def test_a_hang_is_ended_and_costs_one_patch(pyramid: Path, misbehave) -> None:
    misbehave(read="(x, y) == (16, 16) and time.sleep(60)")
    with open_slide(pyramid, limits=QUICK) as slide:
        status = statuses(slide)
    np.testing.assert_array_equal(np.flatnonzero(status), [0])


def test_too_many_crashes_end_the_slide(pyramid: Path, misbehave) -> None:
    misbehave(read="os.abort()")
    with open_slide(pyramid) as slide, pytest.raises(SlideError, match="crash") as caught:
        statuses(slide)
    assert str(pyramid) in one_line(caught.value)


def test_a_crash_while_opening_is_one_error(pyramid: Path, misbehave) -> None:
    misbehave(opening="os.abort()")
    with pytest.raises(SlideError, match="SIGABRT") as caught:
        open_slide(pyramid)
    assert str(pyramid) in one_line(caught.value)


def test_a_hang_while_opening_is_one_error(pyramid: Path, misbehave) -> None:
    misbehave(opening="time.sleep(60)")
    with pytest.raises(SlideError, match="did not answer") as caught:
        open_slide(pyramid, limits=ReaderLimits(open_timeout_s=0.7, retries=0))
    one_line(caught.value)


def test_memory_of_a_reader_is_bounded(pyramid: Path, misbehave) -> None:
    misbehave(read="x == 16 and y == 16 and bytearray(1 << 40)")
    with open_slide(pyramid) as slide:
        np.testing.assert_array_equal(np.flatnonzero(statuses(slide)), [0])


def dead_tiles(path: Path, tiles: list[int]) -> Path:
    """Overwrite the data of some level-0 tiles with what no decoder takes."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in tiles]
    with path.open("r+b") as stream:
        for offset, n_bytes in places:
            stream.seek(offset)
            stream.write(b"\xff" * n_bytes)
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_dead_tiles_fail_exactly_their_patches(tmp_path: Path, workers: int, caplog) -> None:
    """A dead tile poisons an OpenSlide handle for good; it must not poison the next patch."""
    path = dead_tiles(write_pyramid(tmp_path / "a.tiff", tissue_picture()), [1, 7])  # 5 tiles a row
    centres = np.stack(np.meshgrid(np.arange(64, 640, 128), np.arange(64, 380, 128)), -1).reshape(
        -1, 2
    )
    with open_slide(path) as slide:
        status = statuses(slide, centres, workers=workers)
        np.testing.assert_array_equal(np.flatnonzero(status), [1, 7])
        assert [m for m in caplog.messages if "patches" in m] == [
            f"slide {str(path)!r}: 2 of {len(centres)} patches cannot be read; "
            "they are white and marked as failed"
        ]
        assert (slide.overview((64, 48))[24:, :32] < 250).any()


def test_a_slide_whose_patches_all_fail_is_an_error(tmp_path: Path) -> None:
    path = dead_tiles(write_pyramid(tmp_path / "a.tiff", tissue_picture()), list(range(20)))
    with open_slide(path) as slide:
        with pytest.raises(SlideError, match="3 of 3 patches") as caught:
            statuses(slide, CENTRES[:3])
        one_line(caught.value)
        with pytest.raises(SlideError, match="cannot be read"):
            slide.read_region((0, 0), 0, (32, 32))


def test_more_failures_than_allowed_are_an_error(tmp_path: Path) -> None:
    path = dead_tiles(write_pyramid(tmp_path / "a.tiff", tissue_picture()), list(range(10)))
    with open_slide(path) as slide, pytest.raises(SlideError, match="at most 5 of 54"):
        statuses(slide)
    with open_slide(path, limits=ReaderLimits(max_failed=1.0)) as slide:
        status = statuses(slide)
    assert 0 < (status == PatchStatus.FAILED).sum() < len(status)


def patch_tag(path: Path, level: int, tag: int, value: int) -> Path:
    with tifffile.TiffFile(path) as tiff:
        found = tiff.pages[level].tags[tag]
        place, width = found.valueoffset, {3: 2, 4: 4}[int(found.dtype)]
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(value.to_bytes(width, "little"))
    return path


@pytest.mark.parametrize(
    ("level", "tag", "value"),
    [(1, 322, 603_980_032 % 65_536), (0, 322, 32_768), (0, 256, 65_535), (2, 257, 65_535)],
)
def test_absurd_headers_are_refused_or_read(
    tmp_path: Path, level: int, tag: int, value: int
) -> None:
    """Whatever a header says, the answer is pixels or one error of ours."""
    path = write_pyramid(tmp_path / "a.tiff", tissue_picture())
    patch_tag(path, level, tag, value)
    try:
        with open_slide(path) as slide:
            picture = slide.thumbnail(64)
    except SlideError as error:
        one_line(error)
    else:
        assert max(picture.shape[:2]) <= 64
        assert picture.shape[2] == 3


def test_a_storage_tile_beyond_all_bounds_is_refused_before_pixels_are_read(tmp_path: Path) -> None:
    """OpenSlide aborts the interpreter on this header as soon as that level is read."""
    with tifffile.TiffWriter(tmp_path / "a.tiff") as tiff:
        for level, side in enumerate((512, 256)):
            tiff.write(
                np.zeros((side, side, 3), np.uint8), tile=(128, 128), photometric="rgb",
                compression="zlib", subfiletype=level, metadata=None,
                resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    data = bytearray((tmp_path / "a.tiff").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tiff") as tiff:
        tag = tiff.pages[1].tags[322]
        entry = tag.offset
    data[entry + 2 : entry + 12] = (
        (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (603_980_032).to_bytes(4, "little")
    )
    (tmp_path / "a.tiff").write_bytes(data)
    with pytest.raises(SlideError, match="storage tile of level 1 is 603980032") as caught:
        open_slide(tmp_path / "a.tiff")
    one_line(caught.value)


def test_no_process_outlives_its_slide(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        statuses(slide, workers=2, batch_size=4)
        pids = [reader.pid for reader in slide.pool._idle]
        assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_stopping_early_leaves_a_usable_slide(pyramid: Path) -> None:
    with open_slide(pyramid) as slide:
        patches = read_patches(slide, CENTRES, SPEC, batch_size=4, workers=2)
        next(patches)
        patches.close()
        assert not statuses(slide).any()


def test_an_interrupt_in_the_middle_of_a_read_leaves_no_stale_pixels(
    pyramid: Path, misbehave
) -> None:
    """Pixels of an abandoned request must not be taken for those of the next."""
    interrupt = "os.kill(os.getppid(), 2), time.sleep(0.5)"  # while its pixels are waited for
    misbehave(read=f"(x, y) == (400, 300) and ({interrupt})")
    with open_slide(pyramid) as slide:
        expected = slide.read_region((100, 100), 0, (32, 32))
        with pytest.raises(KeyboardInterrupt):
            slide.read_region((400, 300), 0, (32, 32))
        np.testing.assert_array_equal(slide.read_region((100, 100), 0, (32, 32)), expected)


def test_a_reader_follows_its_parent_into_the_end(pyramid: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, time
        from stretrieve.slides import open_slide
        slide = open_slide({str(pyramid)!r})
        print(slide.pool._idle[0].pid, flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    with parent:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if (
            not Path(f"/proc/{pid}").exists()
            or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
        ):
            return
        subprocess.run(["sleep", "0.1"], check=True)
    pytest.fail(f"reader {pid} is still there")


def test_a_script_without_main_guard_works(pyramid: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from stretrieve.slides import open_slide\n"
        f"slide = open_slide({str(pyramid)!r})\n"
        "print(slide.thumbnail(32).shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(24, 32, 3)\n", "")


def test_a_dead_reader_says_what_it_died_of(pyramid: Path) -> None:
    reader = ReaderProcess(pyramid, timeout_s=5)
    os.kill(reader.pid, signal.SIGSEGV)
    with pytest.raises(DeadReaderError, match="SIGSEGV"):
        reader.request([])
        reader.fetch(np.empty((1, 1, 3), np.uint8), timeout_s=5)
    assert not reader.is_alive


def test_a_slide_that_hangs_again_and_again_is_given_up(pyramid: Path, misbehave) -> None:
    misbehave(read="x > 100 and time.sleep(60)")
    limits = ReaderLimits(read_timeout_s=0.5, max_hangs=2)
    with open_slide(pyramid, limits=limits) as slide, pytest.raises(SlideError, match="3 hangs"):
        statuses(slide)


def test_a_header_that_declares_more_than_its_bytes_can_hold_is_refused(
    shared_data, tmp_path
) -> None:
    """An image of 2 Gpx in 2 MB would take minutes to look at, most of it empty."""
    path = tmp_path / "a.svs"
    path.write_bytes((shared_data / "data/wsi/aperio/CMU-1-Small-Region.svs").read_bytes())
    with tifffile.TiffFile(path) as tiff:
        entry = tiff.pages[0].tags[257].offset
    data = bytearray(path.read_bytes())
    data[entry + 2 : entry + 12] = b"\4\0\1\0\0\0" + (1_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SlideError, match="1000 px a byte") as caught:
        open_slide(path)
    one_line(caught.value)


def test_a_mostly_dead_slide_is_given_up_soon(tmp_path: Path) -> None:
    path = dead_tiles(
        write_pyramid(tmp_path / "a.tiff", tissue_picture(), levels=1), list(range(18))
    )
    with open_slide(path) as slide, pytest.raises(SlideError, match="cannot be read"):
        slide.overview((640, 480))


def test_a_dead_corner_leaves_the_rest_of_an_overview(tmp_path: Path, caplog) -> None:
    path = write_pyramid(tmp_path / "a.tiff", tissue_picture(), levels=1)
    with open_slide(path) as slide:
        whole = slide.overview((320, 240))
    dead_tiles(path, [0])
    with open_slide(path) as slide:
        damaged = slide.overview((320, 240))
    assert "cannot be read and are white" in caplog.text
    changed = (damaged != whole).any(axis=2)
    assert changed[:130, :130].mean() > 0
    assert not changed[140:].any()
    assert not changed[:, 180:].any()
