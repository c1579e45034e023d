import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stretrieve.errors import ConfigError, MppError
from stretrieve.specs import PatchSpec, PatchView
from stretrieve.units import MppSource, PixelSize

mpps = st.floats(0.05, 20)


@given(mpps, mpps, st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)), min_size=1))
def test_pixels_to_microns_and_back(x, y, points):
    size = PixelSize(x, y, MppSource.FILE)
    np.testing.assert_allclose(size.to_px(size.to_um(points)), points, rtol=1e-9, atol=1e-9)


def test_axes_are_not_mixed():
    size = PixelSize(0.5, 2.0, MppSource.GRID)
    np.testing.assert_array_equal(size.to_um([[10, 10]]), [[5, 20]])
    assert size.mean == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_nonsense_resolution_is_refused(value):
    with pytest.raises(MppError, match="mpp along y"):
        PixelSize(0.5, value, MppSource.FILE)


def test_implausible_resolution_says_what_to_do():
    with pytest.raises(MppError, match=r"mpp of a\.svs: got 40 x 40 \(file\).*--mpp"):
        PixelSize.square(40, MppSource.FILE).check_plausible("a.svs")


def test_spec_round_trip_and_side():
    spec = PatchSpec((PatchView(224, 0.5), PatchView(224, 1.0)), n_neighbors=6)
    assert PatchSpec.from_dict(spec.to_dict()) == spec
    assert spec.primary.side_um == 112
    assert PatchSpec.single(100, side_um=200).primary.mpp == 2


def test_spec_refuses_nonsense():
    with pytest.raises(ConfigError, match="patch views"):
        PatchSpec(())
    with pytest.raises(ConfigError, match="patch_px"):
        PatchView(0, 0.5)
    with pytest.raises(ConfigError, match="n_neighbors"):
        PatchSpec((PatchView(8, 0.5),), n_neighbors=-1)
