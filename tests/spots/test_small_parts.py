"""Position files, image headers, text files, normalisation, variable genes."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from stretrieve.errors import (
    ConfigError,
    GenePanelError,
    InputNotFoundError,
    SectionError,
    ShapeError,
)
from stretrieve.spots import (
    READERS,
    SheetRow,
    assemble,
    detect_format,
    highly_variable_genes,
    log_cp10k,
    read_spot_positions,
)
from stretrieve.spots.delimited import read_count_table
from stretrieve.spots.imagesize import image_size
from stretrieve.spots.lattice import ST_1K
from stretrieve.spots.raw import RawMatrix, RawSection, SpotTable
from stretrieve.spots.section import Section
from stretrieve.spots.textio import read_lines
from stretrieve.spots.variable_genes import normalised_variance

from .layouts import positions, st_grid, toy, write_spatial


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_positions_of_space_ranger(tmp_path: Path, generation: int) -> None:
    section = toy()
    write_spatial(tmp_path, section, generation=generation)
    path = next(p for p in tmp_path.iterdir() if "positions" in p.name)
    ids, xy = read_spot_positions(path)
    assert ids.tolist() == [n for n, u in zip(section.barcodes, section.under, strict=True) if u]
    np.testing.assert_allclose(xy, section.xy[section.under])


def test_positions_of_a_selection_table_and_of_a_plain_csv(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(
        "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t2\t1\t2\t10.5\t20\t1\n3\t4\t3\t4\t30\t40\t0\n"
    )
    ids, xy = read_spot_positions(tmp_path / "a.tsv")
    assert (ids.tolist(), xy.tolist()) == (["1x2"], [[10.5, 20]])
    (tmp_path / "b.csv").write_text("spot_id,pixel_x,pixel_y\nhello,1,2\nworld,3,4\n")
    ids, xy = read_spot_positions(tmp_path / "b.csv")
    assert (ids.tolist(), xy.tolist()) == (["hello", "world"], [[1, 2], [3, 4]])


def test_text_that_unpacks_without_end_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tsv.gz"
    bomb.write_bytes(gzip.compress(b"0\t" * 999 + b"0\n" + (b"0\t" * 999 + b"0\n") * 40_000))
    with pytest.raises(SectionError, match="400 times its size"):
        list(read_lines(bomb))
    dense = np.random.default_rng(0).integers(0, 3, (400, 40_000)).astype("U1")
    real = tmp_path / "real.tsv.gz"
    real.write_bytes(gzip.compress("\n".join("\t".join(row) for row in dense).encode(), 1))
    assert len(list(read_lines(real))) == 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "spot_id,pixel_x,pixel_y\na,1,2\na,3,4\n",
        "spot_id,pixel_x,pixel_y\na,1,nan\n",
        "spot_id,pixel_x,pixel_y\na,1,two\n",
        "spot_id,pixel_x,pixel_y\na,1\n",
        "spot_id,pixel_x\na,1\n",
        "x\ty\tpixel_x\tpixel_y\tselected\n1\t2\t3\t4\t0\n",
        "barcode,in_tissue,array_row,pxl_row_in_fullres\na,1,2,3\n",
    ],
)
def test_position_files_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(SectionError) as caught:
        read_spot_positions(tmp_path / "p.csv")
    assert "\n" not in str(caught.value)


def test_missing_positions(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        read_spot_positions(tmp_path / "none.csv")


def test_parquet_positions_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(SectionError, match="parquet"):
        read_spot_positions(tmp_path / "p.parquet")
    positions(toy()).drop(columns="array_row").to_parquet(tmp_path / "q.parquet")
    with pytest.raises(SectionError, match="array_row"):
        read_spot_positions(tmp_path / "q.parquet")
    table = positions(toy()).astype({"pxl_row_in_fullres": float})
    table.loc[0, "pxl_row_in_fullres"] = np.inf
    table.to_parquet(tmp_path / "r.parquet")
    with pytest.raises(SectionError, match="infinite"):
        read_spot_positions(tmp_path / "r.parquet")


def test_parquet_with_names_that_are_no_text(tmp_path: Path) -> None:
    name = toy().barcodes[0].encode()
    positions(toy()).to_parquet(tmp_path / "p.parquet", compression=None)
    data = (tmp_path / "p.parquet").read_bytes()
    assert name in data
    (tmp_path / "p.parquet").write_bytes(data.replace(name, b"\xf9" + name[1:]))
    with pytest.raises(SectionError, match="parquet"):
        read_spot_positions(tmp_path / "p.parquet")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_image_sizes_from_the_header(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"i{suffix}"
    Image.new("RGB", (321, 123)).save(path)
    assert image_size(path) == (321, 123)


def test_image_size_of_big_tiff(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "i.tiff"
    tifffile.imwrite(
        path, np.zeros((64, 96, 3), np.uint8), bigtiff=True, byteorder=">", tile=(32, 32)
    )
    assert image_size(path) == (96, 64)


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(max_size=60),
    kind=st.sampled_from([b"", b"\xff\xd8", b"II*\0", b"\x89PNG\r\n\x1a\n"]),
)
def test_headers_of_nonsense_give_none_or_a_size(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.tif"
    path.write_bytes(kind + data)
    size = image_size(path)
    assert size is None or min(size) > 0


def test_jpeg_with_endless_segments(tmp_path: Path) -> None:
    (tmp_path / "i.jpg").write_bytes(b"\xff\xd8" + b"\xff\xe0" + struct.pack(">H", 0) * 9)
    assert image_size(tmp_path / "i.jpg") is None


def test_lines_of_plain_and_zipped_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b").write_bytes(gzip.compress(b"one\ntwo\n"))
    assert list(read_lines(tmp_path / "a")) == list(read_lines(tmp_path / "b")) == ["one", "two"]


def test_text_that_is_too_long_damaged_or_binary(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.gz"
    bomb.write_bytes(gzip.compress(b"0\t" * 500_000))
    with pytest.raises(SectionError, match="too much text"):
        list(read_lines(bomb, max_bytes=1000))
    bomb.write_bytes(bomb.read_bytes()[:50])
    with pytest.raises(SectionError, match="readable"):
        list(read_lines(bomb))
    bomb.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(SectionError, match="readable"):
        list(read_lines(bomb))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\tb\n",
        "\tg1\tg2\n1x1\t1\n",
        "\tg1\tg2\n1x1\t1\tx\n",
        "\tg1\tg2\nfoo\t1\t2\n",
        "\tg1\n1x1\t1\t2\n",
    ],
)
def test_count_tables_that_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.tsv").write_text(text)
    with pytest.raises(SectionError):
        read_count_table(tmp_path / "c.tsv")


def test_formats_are_told_apart_or_asked_for(tmp_path: Path) -> None:
    assert set(READERS) >= {"st", "visium", "visium_hd", "hest", "xenium", "anndata", "spatialdata"}
    with pytest.raises(SectionError, match="format column"):
        detect_format(SheetRow("s", tmp_path))


def test_log_cp10k() -> None:
    counts = sparse.csr_matrix(np.array([[1, 3], [0, 0], [0, 4]]))
    scaled = log_cp10k(counts)
    np.testing.assert_allclose(
        scaled.toarray(), np.log1p([[2500, 7500], [0, 0], [0, 10000]]), rtol=1e-6
    )
    assert scaled.dtype == np.float32
    half = log_cp10k(counts[:, :1], library_size=[4, 0, 4])
    np.testing.assert_allclose(half.toarray()[:, 0], np.log1p([2500, 0, 0]), rtol=1e-6)
    assert counts.dtype.kind == "i"
    with pytest.raises(ShapeError):
        log_cp10k(counts, library_size=[1, 2])


def section(counts: np.ndarray, genes: list[str]) -> Section:
    array, xy, _ = st_grid()
    names = [f"s{i}" for i in range(len(array))]
    raw = RawMatrix(sparse.csr_matrix(counts), names, genes, [""] * len(genes))
    spots = SpotTable(names, xy, array, np.ones(len(names), dtype=bool))
    return assemble(
        RawSection(raw, spots, lattice=ST_1K), SheetRow("s", counts=None, species="none")
    )  # type: ignore[arg-type]


def made_up(seed: int, *, n_genes: int = 600) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    means = np.r_[rng.uniform(3, 10, 10), rng.uniform(1, 60, n_genes - 10)]
    counts = rng.poisson(means, size=(len(st_grid()[0]), n_genes))
    counts[:24, :10] = rng.poisson(means[:10] * 6, size=(24, 10))
    return counts, [f"g{i:03d}" for i in range(n_genes)]


def test_variable_genes_are_those_that_differ_between_spots() -> None:
    found = highly_variable_genes([section(*made_up(seed)) for seed in range(3)], 10)
    assert sorted(found) == [f"g{i:03d}" for i in range(10)]


def test_the_median_section_decides_not_the_first() -> None:
    odd = made_up(9)[0][:, ::-1]
    sections = [section(odd, made_up(0)[1]), *(section(*made_up(seed)) for seed in range(3))]
    assert sorted(highly_variable_genes(sections, 10)) == [f"g{i:03d}" for i in range(10)]


def test_only_shared_genes_are_chosen_whatever_the_order() -> None:
    counts, genes = made_up(0)
    one, two = section(counts, genes), section(counts[:, ::-1], genes[::-1])
    three = section(counts[:, 5:], genes[5:])
    assert highly_variable_genes([one], 20) == highly_variable_genes([two], 20)
    assert set(highly_variable_genes([one, three], 999)) == set(genes[5:])


def test_variable_genes_errors() -> None:
    counts, genes = made_up(0)
    with pytest.raises(ConfigError):
        highly_variable_genes([section(counts, genes)], 0)
    with pytest.raises(SectionError):
        highly_variable_genes([], 5)
    other = section(counts, [f"h{i}" for i in range(len(genes))])
    with pytest.raises(GenePanelError):
        highly_variable_genes([section(counts, genes), other], 5)


def test_normalised_variance_equals_its_definition() -> None:
    counts = made_up(1)[0]
    found = normalised_variance(sparse.csr_matrix(counts))
    n, mean = len(counts), counts.mean(axis=0)
    reach = np.sqrt(n)
    assert 0.6 < np.median(found) < 1.4  # Poisson genes vary as their mean predicts
    assert found[:10].min() > np.quantile(found[10:], 0.9)
    # one gene by hand: recover its expected sd, then standardise, clip and take the variance
    j = 100
    sd = np.sqrt(counts[:, j].var(ddof=1) / found[j])
    standard = np.minimum((counts[:, j] - mean[j]) / sd, reach)
    assert (standard**2).sum() / (n - 1) == pytest.approx(found[j])


def test_constant_and_tiny_matrices_do_not_vary() -> None:
    assert normalised_variance(sparse.csr_matrix(np.ones((5, 3)))).tolist() == [0, 0, 0]
    assert normalised_variance(sparse.csr_matrix(np.ones((1, 3)))).tolist() == [0, 0, 0]
    lone = np.zeros((5, 2))
    lone[0, 1] = 3
    assert normalised_variance(sparse.csr_matrix(lone))[0] == 0
