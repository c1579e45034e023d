"""The shipped suite on every reader, on real and on written files."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from PIL import Image

from stretrieve.slides import open_slide
from stretrieve.testing.slides import SlideCase, SlideContract
from stretrieve.units import Mpp, MppSource, PixelSize
from tests.slides.pictures import tissue_picture, write_ome, write_pyramid

HALF = PixelSize.square(0.5, MppSource.GIVEN)
REAL = {
    "aperio": ("wsi/aperio/CMU-1-Small-Region.svs", None),
    "aperio-16px": ("wsi/aperio/osp_small.svs", None),
    "hamamatsu": ("wsi/hamamatsu/hamamatsu_test3-DAPI-2-387.ndpi", None),
    "generic-tiff": ("wsi/generic_tiff/her2st_C3_pyramid.tiff", None),
    "generic-tiff-boxes": ("wsi/generic_tiff/osp_boxes.tiff", HALF),
    "dicom": ("wsi/dicom/hd_sm_image.dcm", None),
    "dicom-pyramid": ("wsi/dicom/osp_boxes_0.dcm", None),
    "ome-jpeg": ("wsi/not_openslide/OS-2-vsi.ome.tif", None),
    "plain-tiff": ("wsi/not_openslide/kidney-48-5.tif", HALF),
    "png": ("her2st/A1/image.png", PixelSize(Mpp(3.2), Mpp(3.18), MppSource.GRID)),
    "jpeg": ("mob_xfuse_st1k/test/image.jpg", PixelSize.square(6.88, MppSource.GRID)),
}
WRITTEN = (
    "pyramid", "aperio-written", "ome-pyramid", "ome-planar", "tiff-lzw", "tiff-one-strip",
    "tiff-16-rows", "tiff-packbits", "png-alpha", "png-palette", "png-grey",
)  # fmt: skip


class TestRealSlides(SlideContract):
    @pytest.fixture(params=sorted(REAL), scope="class")
    @classmethod
    def slide_case(cls, request, shared_data: Path) -> SlideCase:
        name, pixel_size = REAL[request.param]
        return SlideCase(shared_data / "data" / name, pixel_size)


class TestWrittenSlides(SlideContract):
    @pytest.fixture(params=WRITTEN, scope="class")
    @classmethod
    def slide_case(cls, request, tmp_path_factory) -> SlideCase:
        return write_case(tmp_path_factory.mktemp("slides"), request.param)


def write_case(folder: Path, kind: str) -> SlideCase:
    picture = tissue_picture()
    image = Image.fromarray(picture)
    if kind == "pyramid":
        return SlideCase(write_pyramid(folder / "a.tiff", picture))
    if kind == "aperio-written":
        text = "Aperio Image Library v1\n640x480 (128x128)|AppMag = 20|MPP = 0.5"
        return SlideCase(write_pyramid(folder / "a.svs", picture, description=text))
    if kind.startswith("ome"):
        return SlideCase(write_ome(folder / "a.ome.tif", picture, planar=kind == "ome-planar"))
    if kind == "tiff-one-strip":
        tifffile.imwrite(folder / "a.tif", picture, photometric="rgb", metadata=None)
    elif kind == "tiff-16-rows":
        tifffile.imwrite(
            folder / "a.tif", picture, photometric="rgb", rowsperstrip=16, compression="zlib"
        )
    elif kind.startswith("tiff"):
        image.save(
            folder / "a.tif", compression=f"tiff_{kind[5:]}".replace("tiff_packbits", "packbits")
        )
    else:
        alpha = Image.new("L", image.size, 255)
        alpha.paste(0, (0, 0, 100, 100))
        modes = {"png-palette": image.quantize(64), "png-grey": image.convert("L")}
        if kind == "png-alpha":
            image.putalpha(alpha)
        modes.get(kind, image).save(folder / "a.png")
        return SlideCase(folder / "a.png", HALF)
    return SlideCase(folder / "a.tif", HALF)


@pytest.mark.parametrize("kind", WRITTEN)
def test_written_pixels_come_back(tmp_path: Path, kind: str) -> None:
    """Lossless files give back the very pixels, whatever their layout."""
    case = write_case(tmp_path, kind)
    picture = tissue_picture().copy()
    if kind == "png-alpha":
        picture[:100, :100] = 255
    with open_slide(case.path, pixel_size=case.pixel_size) as slide:
        got = slide.read_region((0, 0), 0, slide.dimensions)
        reader = {"pyramid": "generic-tiff", "aperio-written": "aperio"}.get(kind, kind[:3])
        assert slide.kind.startswith(reader)
    if kind in ("png-palette", "png-grey"):
        assert abs(got.astype(int) - picture).mean() < 30
    else:
        assert (got == picture).all()


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    case = write_case(tmp_path, "png-alpha")
    with open_slide(case.path, pixel_size=HALF) as slide:
        assert (slide.read_region((0, 0), 0, (100, 100)) == 255).all()
        assert (slide.read_region((300, 200), 0, (50, 50)) < 255).any()
