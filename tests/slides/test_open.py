"""What is opened, what is refused and how clearly, and whose microns per pixel are believed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from stretrieve.errors import ExitCode, InputNotFoundError, MppError, SlideError
from stretrieve.slides import open_slide
from stretrieve.slides.readers.base import Header
from stretrieve.slides.resolution import settle_pixel_size
from stretrieve.units import Mpp, MppSource, PixelSize
from tests.slides.pictures import tissue_picture, write_ome, write_pyramid

HALF = PixelSize.square(0.5, MppSource.GIVEN)
REFUSED = {
    "invalid/broken.svs": "not a slide format",
    "invalid/hd_sm_image_grayscale.dcm": "BitsAllocated value 16",
    "invalid/hd_sm_image_jpegls.dcm": "Unsupported transfer syntax",
    "invalid/osp_unopenable.tiff": "Unsupported TIFF compression",
    "invalid/osp_unreadable.svs": "Bogus marker length",
    "not_openslide/pathml_small_dicom.dcm": "image flavor",
}


def refusal(path: Path, kind: type = SlideError, **options) -> str:
    """Open and look at a file that must be refused with one clear line; return the line."""
    with pytest.raises(kind) as caught, open_slide(path, **options) as slide:
        slide.thumbnail(64)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert str(path) in text
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return text


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_invalid_slides_are_refused_in_one_line(shared_data: Path, name: str) -> None:
    assert REFUSED[name] in refusal(shared_data / "data/wsi" / name, pixel_size=HALF)


def test_every_real_slide_opens_or_is_refused(shared_data: Path) -> None:
    """No file of the collection is forgotten: each one opens, but for those that must not."""
    folder = shared_data / "data/wsi"
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        if str(path.relative_to(folder)) in REFUSED:
            continue
        with open_slide(path, pixel_size=HALF) as slide:
            assert slide.thumbnail(64).std() > 0


@pytest.mark.parametrize("name", ["A1/image.png", "A2/image.png", "B4/image.jpg"])
def test_real_section_images_need_a_pixel_size(shared_data, name: str, caplog, monkeypatch) -> None:
    """Their 72 dpi tag is no measure of the tissue."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = shared_data / "data/her2st" / name
    text = refusal(path, MppError)
    assert "--mpp" in text
    assert "sheet" in text
    given = PixelSize(Mpp(3.2), Mpp(3.18), MppSource.GRID)
    with open_slide(path, pixel_size=given) as slide, Image.open(path) as image:
        assert slide.dimensions == image.size
        assert slide.pixel_size == given
        xy = (image.width // 2, image.height // 2)
        expected = np.asarray(image.convert("RGB").crop((*xy, xy[0] + 50, xy[1] + 50)))
        np.testing.assert_array_equal(slide.read_region(xy, 0, (50, 50)), expected)
    assert ("as a whole takes" in caplog.text) == (image.width > 4000)


def test_missing_and_strange_paths_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "nothing.svs", InputNotFoundError)
    refusal(tmp_path)
    (tmp_path / "empty.svs").touch()
    assert "empty" in refusal(tmp_path / "empty.svs")
    refusal(tmp_path / "empty.svs" / "inside.svs", InputNotFoundError)
    os.mkfifo(tmp_path / "pipe.svs")
    assert "not a file" in refusal(tmp_path / "pipe.svs")
    (tmp_path / "text.png").write_text("no picture")
    refusal(tmp_path / "text.png")


def test_odd_names_are_fine(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tiff", tissue_picture())
    for name in ("mit Leerzeichen und µ.tiff", "-dash.tiff", "%s{0}'\".tiff", "no_suffix"):
        shutil.copy(path, tmp_path / name)
        with open_slide(tmp_path / name) as slide:
            assert slide.dimensions == (640, 480)


def kill_readers() -> None:
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    readers = [c for c in children if b"slides.worker" in Path(f"/proc/{c}/cmdline").read_bytes()]
    assert readers
    for child in readers:
        os.kill(int(child), signal.SIGKILL)


def test_relative_paths_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch) -> None:
    write_pyramid(tmp_path / "a.tiff", tissue_picture())
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_slide("a.tiff") as slide:
        monkeypatch.chdir(tmp_path / "other")
        kill_readers()  # the next one has to find the file again
        pixels = slide.read_region((0, 0), 0, (8, 8))
    with open_slide(tmp_path / "a.tiff") as slide:
        np.testing.assert_array_equal(pixels, slide.read_region((0, 0), 0, (8, 8)))


def test_a_vendor_file_is_never_read_as_something_else(tmp_path: Path) -> None:
    """The index of a MIRAX slide is a JPEG of its label; a damaged SVS is still a TIFF."""
    Image.fromarray(tissue_picture()).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.mrxs")
    refusal(tmp_path / "a.mrxs", pixel_size=HALF)
    tifffile.imwrite(tmp_path / "a.svs", tissue_picture(), photometric="rgb")
    refusal(tmp_path / "a.svs", pixel_size=HALF)


def test_pictures_that_are_not_8_bit_colour_are_refused(tmp_path: Path) -> None:
    deep = tissue_picture().astype(np.uint16) * 256
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb")
    assert "uint16" in refusal(tmp_path / "a.tif", pixel_size=HALF)
    Image.fromarray(deep[..., 0]).save(tmp_path / "a.png")
    assert "8-bit RGB" in refusal(tmp_path / "a.png", pixel_size=HALF)
    stack = np.zeros((4, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, ome=True, metadata={"axes": "ZYX"})
    assert "SizeZ 4" in refusal(tmp_path / "a.ome.tif", pixel_size=HALF)


def test_a_picture_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    size = struct.pack(">II", 40_000, 40_000)
    head = b"IHDR" + size + b"\x08\x02\0\0\0"
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "a.png").write_bytes(png + struct.pack(">I", 4) + b"IDAT" + bytes(8))
    assert "pyramidal TIFF" in refusal(tmp_path / "a.png", pixel_size=HALF)


def test_a_truncated_picture_is_one_error(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(tissue_picture()).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refusal(path, pixel_size=HALF)


def test_mpp_of_the_file_is_taken(tmp_path: Path) -> None:
    with open_slide(write_pyramid(tmp_path / "a.tiff", tissue_picture(), mpp=0.25)) as slide:
        np.testing.assert_allclose([slide.pixel_size.x, slide.pixel_size.y], 0.25, rtol=1e-3)
        assert slide.pixel_size.source is MppSource.FILE
    with open_slide(write_ome(tmp_path / "a.ome.tif", tissue_picture(), mpp=0.33)) as slide:
        assert (slide.kind, slide.pixel_size.x) == ("ome-tiff", 0.33)
        assert len(slide.level_dimensions) == 2


def test_no_mpp_is_an_error_that_says_where_it_was_looked_for(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "a.tiff", tissue_picture(), mpp=None)
    text = refusal(path, MppError)
    assert "openslide.mpp-x" in text
    assert "--mpp" in text
    path = write_ome(tmp_path / "a.ome.tif", tissue_picture(), mpp=None)
    assert "PhysicalSizeX" in refusal(path, MppError)
    Image.fromarray(tissue_picture()).save(tmp_path / "a.tif", dpi=(72, 72))
    assert "tiff.XResolution = 72" in refusal(tmp_path / "a.tif", MppError)


def header(mpp: float | None = None, power: float | None = None) -> Header:
    pair = None if mpp is None else (mpp, mpp)
    return Header("x", ((10, 10),), (1.0,), mpp=pair, mpp_keys=("key",), objective_power=power)


@pytest.mark.parametrize("mpp", [0.09, 5.1, 352.8])
def test_an_implausible_mpp_of_the_file_is_refused(mpp: float) -> None:
    with pytest.raises(MppError, match=r"0\.1 to 5"):
        settle_pixel_size("slide 'a'", header(mpp), None)


@pytest.mark.parametrize(
    ("mpp", "source", "accepted"),
    [
        (5.1, MppSource.GIVEN, False),
        (0.05, MppSource.GIVEN, False),
        (13.3, MppSource.GRID, True),
        (13.3, MppSource.SHEET, True),
        (23.4, MppSource.METADATA, True),
        (26.0, MppSource.GRID, False),
        (0.05, MppSource.SHEET, False),
    ],
)
def test_plausibility_depends_on_where_an_mpp_comes_from(mpp, source, accepted) -> None:
    given = PixelSize.square(mpp, source)
    if accepted:
        assert settle_pixel_size("slide 'a'", header(), given) == given
    else:
        with pytest.raises(MppError):
            settle_pixel_size("slide 'a'", header(), given)


@pytest.mark.parametrize(
    ("mpp", "power", "warns"),
    [(0.5, 20, False), (0.25, 40, False), (0.25, 20, True), (0.34, 20, False)],
)
def test_objective_power_is_compared(mpp, power, warns, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        settle_pixel_size("slide 'a'", header(mpp, power), None)
    assert ("objective power" in caplog.text) == warns


def test_an_objective_power_far_off_is_an_error_unless_the_user_says_otherwise(caplog) -> None:
    with pytest.raises(MppError, match="objective power"):
        settle_pixel_size("slide 'a'", header(0.25, 10), None)
    given = PixelSize.square(0.25, MppSource.GIVEN)
    assert settle_pixel_size("slide 'a'", header(1.0, 10), given) == given
    assert "the file says 1" in caplog.text
    assert "objective power" in caplog.text
