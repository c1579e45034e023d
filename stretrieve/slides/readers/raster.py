"""Plain raster images that are decoded as a whole: PNG, JPEG, and TIFF without tiles."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from stretrieve.slides.limits import MAX_RASTER_PX
from stretrieve.slides.readers.base import Header, ReaderError, WrongFormatError, check_sides

WHITE = (255, 255, 255)
_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    MemoryError,
    OverflowError,
    Image.DecompressionBombError,
)
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


class RasterReader:
    """An image that is decoded once, at the first read, and kept.

    Parameters
    ----------
    path
        The file.
    formats
        Pillow's names of the formats to accept.
    header
        Header that another decoder found; read from the file when ``None``.

    Raises
    ------
    WrongFormatError
        When the file is none of ``formats``.
    ReaderError
        When the header is broken, out of bounds or not of 8-bit colour.
    """

    def __init__(
        self,
        path: Path,
        *,
        formats: tuple[str, ...] = ("PNG", "JPEG"),
        header: Header | None = None,
    ) -> None:
        Image.MAX_IMAGE_PIXELS = None  # `_probe` has a bound of its own, with a clearer message
        self._path = path
        self._formats = formats
        self._image: Image.Image | None = None
        self._fault: ReaderError | None = None
        found = self._probe()
        self.header = header or found

    def _probe(self) -> Header:
        image = self._open()
        with image:
            check_sides("image", *image.size)
            if image.width * image.height > MAX_RASTER_PX:
                raise ReaderError(
                    f"image is {image.width} x {image.height} px and must be decoded as a whole; "
                    f"expected at most {MAX_RASTER_PX} px; convert it to a pyramidal TIFF"
                )
            if image.mode not in _MODES:
                raise ReaderError(f"image has pixels of mode {image.mode!r}; expected 8-bit RGB")
            return Header(
                kind=str(image.format).lower(),
                levels=(image.size,),
                downsamples=(1.0,),
                mpp_keys=(f"none in {image.format} files",),
                whole_px=image.width * image.height,
            )

    def _open(self) -> Image.Image:
        try:
            return Image.open(self._path, formats=self._formats)
        except UnidentifiedImageError as error:
            raise WrongFormatError("not a raster image") from error
        except _FAULTS as error:
            raise ReaderError(f"header cannot be read ({error})") from error

    def _decode(self) -> Image.Image:
        image = self._open()
        try:
            image.load()  # closes the file as well
            return _rgb_on_white(image)
        except _FAULTS as error:
            self._fault = ReaderError(f"pixels cannot be decoded ({error})")
            raise self._fault from error

    def read(self, level: int, xy: tuple[int, int], size: tuple[int, int]) -> Image.Image:
        """Return one region as an RGB image; outside of the image it is white."""
        del level
        if self._fault is not None:
            raise self._fault
        if self._image is None:
            self._image = self._decode()
        return crop_on_white(self._image, xy, size)

    def close(self) -> None:
        """Release the pixels."""
        self._image = None


def crop_on_white(image: Image.Image, xy: tuple[int, int], size: tuple[int, int]) -> Image.Image:
    """Cut a region out of an image; where there is no image it is white.

    Parameters
    ----------
    image
        The image.
    xy
        Top left corner of the region.
    size
        (width, height) of the region.
    """
    left, top = max(xy[0], 0), max(xy[1], 0)
    right, bottom = min(xy[0] + size[0], image.width), min(xy[1] + size[1], image.height)
    if (right - left, bottom - top) == size:
        return image.crop((left, top, right, bottom))
    canvas = Image.new("RGB", size, WHITE)
    if right > left and bottom > top:
        canvas.paste(image.crop((left, top, right, bottom)), (left - xy[0], top - xy[1]))
    return canvas


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, WHITE)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image.convert("RGB")
