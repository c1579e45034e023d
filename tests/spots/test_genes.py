"""Gene identity: one key a gene, whatever its name; what is not sure stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from stretrieve.errors import GenePanelError, InputNotFoundError
from stretrieve.spots import (
    SheetRow,
    check_overlap,
    compare_gene_files,
    compare_genes,
    gene_table_info,
    identify_genes,
    read_gene_file,
    read_section,
)
from stretrieve.spots.gene_table import NameKind, load_gene_table
from stretrieve.spots.genes import species_of_names
from stretrieve.spots.spreadsheet_names import original_names

from .layouts import IDS, SYMBOLS, st_grid, toy, write_h5, write_st

LRMDA = "ENSG00000148655"


def keys(*names: str, species: str = "human") -> list[str]:
    return identify_genes(names, species=species).keys


def test_ensembl_ids_lose_version_and_genome_prefix() -> None:
    names = ["ENSG00000141736.14", "GRCh38_ENSG00000186081", "mm10___ENSMUSG00000026020"]
    assert keys(*names, species="") == ["ENSG00000141736", "ENSG00000186081", "ENSMUSG00000026020"]


def test_symbols_of_today_of_old_and_aliases() -> None:
    found = identify_genes(["ERBB2", "C10orf11", "FAM132A", "nonsense"], species="human")
    assert found.keys == ["ENSG00000141736", LRMDA, "ENSG00000184163", "nonsense"]
    assert list(found.table["gene_symbol"]) == ["ERBB2", "LRMDA", "C1QTNF12", "nonsense"]
    assert list(found.table["gene_id"]) == ["ENSG00000141736", LRMDA, "ENSG00000184163", ""]
    assert found.updated == ("C10orf11", "FAM132A")
    assert found.repairs == ("2 former or alias gene symbols resolved",)


def test_an_alias_never_takes_a_gene_that_is_named_directly() -> None:
    assert keys("HER2") == ["ENSG00000141736"]
    assert keys("HER2", "ERBB2") == ["HER2", "ENSG00000141736"]
    assert keys("LRMDA", "C10orf11") == [LRMDA, "C10orf11"]
    assert keys(LRMDA, "C10orf11") == [LRMDA, "C10orf11"]


def test_two_indirect_names_of_one_gene_both_stay() -> None:
    table = load_gene_table("human")
    assert table is not None
    names: dict[str, list[str]] = {}
    for name, ids in table.names[NameKind.PREVIOUS].items():
        if len(ids) == 1:
            names.setdefault(ids[0], []).append(name)
    pair = next(sorted(n)[:2] for n in names.values() if len(n) > 1)
    assert keys(*pair) == pair


def test_repeated_symbols_are_summed_and_counted() -> None:
    found = identify_genes(["ACTB", "ERBB2", "ACTB"], species="human")
    merged = found.merge(sparse.csr_matrix(np.array([[1, 2, 3], [0, 5, 7]])))
    np.testing.assert_array_equal(merged.toarray(), [[4, 2], [7, 5]])
    assert found.repairs == ("1 duplicate genes summed",)


def test_id_and_symbol_of_one_gene_are_summed() -> None:
    assert keys("ENSG00000141736.2", "ERBB2") == ["ENSG00000141736"]


def test_ambiguous_symbols_keep_their_name() -> None:
    table = load_gene_table("human")
    assert table is not None
    name = next(n for n, ids in table.names[NameKind.CURRENT].items() if len(ids) > 1)
    found = identify_genes([name, "ERBB2"], species="human")
    assert found.keys[0] == name
    assert found.ambiguous == (name,)
    assert "1 ambiguous" in found.repairs[0]


@pytest.mark.parametrize(
    ("mangled", "symbol"),
    [
        ("3-Mar", "MARCHF3"),
        ("2-Sep", "SEPTIN2"),
        ("Sep-02", "SEPTIN2"),
        ("1-Dec", "DELEC1"),
        ("15-Sep", "SELENOF"),
    ],
)
def test_names_that_a_spreadsheet_turned_into_dates(mangled: str, symbol: str) -> None:
    found = identify_genes([mangled, "ERBB2"], species="human")
    assert found.table["gene_symbol"].iloc[0] == symbol
    assert any("turned into dates restored" in text for text in found.repairs)


def test_dates_that_may_be_two_genes_are_left_and_reported() -> None:
    found = identify_genes(["1-Mar"], species="human")
    assert found.keys == ["1-Mar"]
    assert any("0 of 1 gene names turned into dates" in text for text in found.repairs)


def test_spreadsheet_names_of_the_mouse() -> None:
    assert original_names("3-Mar", species="mouse") == ("March3", "Marc3")
    assert original_names("ERBB2", species="human") == ()
    found = identify_genes(["4-Sep", "Actb"], species="mouse")
    assert found.table["gene_symbol"].tolist() == ["Septin4", "Actb"]


def test_names_that_r_made_syntactic() -> None:
    found = identify_genes(["H2.K1", "HLA.A"], species="mouse")
    assert found.table["gene_symbol"].iloc[0] == "H2-K1"
    assert identify_genes(["HLA.A"], species="human").table["gene_symbol"].iloc[0] == "HLA-A"


def test_other_spelling_of_a_current_symbol() -> None:
    assert keys("erbb2") == ["ENSG00000141736"]


def test_the_species_decides_and_the_names_tell_it() -> None:
    human, mouse = ["ERBB2", "ACTB", "KRT5", "CD3E"], ["Erbb2", "Actb", "Krt5", "Cd3e"]
    assert species_of_names(human) == "human"
    assert species_of_names(mouse) == "mouse"
    assert species_of_names(IDS) == "human"
    assert species_of_names([*human, *mouse]) == ""
    assert species_of_names(["SIM-1", "SIM-2"]) == ""
    assert identify_genes(mouse).keys[0].startswith("ENSMUSG")
    assert keys("ERBB2", species="rat") == ["ERBB2"]


def test_symbols_beside_ids_are_brought_up_to_date() -> None:
    found = identify_genes([LRMDA, "ENSG99999999999"], ["C10orf11", "novel"], species="human")
    assert found.table["gene_symbol"].tolist() == ["LRMDA", "novel"]


def test_the_table_is_dated_and_names_its_sources() -> None:
    info = gene_table_info()
    assert info["date"] == "2026-11-21"
    assert {source["what"] for source in info["sources"]} >= {"human genes", "mouse genes"}
    assert all(len(source["sha256"]) == 64 for source in info["sources"])


def test_every_current_symbol_of_one_gene_resolves_to_it() -> None:
    for species in ("human", "mouse"):
        table = load_gene_table(species)
        assert table is not None
        unique = [(n, i[0]) for n, i in table.names[NameKind.CURRENT].items() if len(i) == 1]
        assert len(unique) > 40_000
        found = identify_genes([name for name, _ in unique[:5000]], species=species)
        assert found.keys == [gene_id for _, gene_id in unique[:5000]]


def test_overlap_of_ids_and_symbols() -> None:
    overlap = compare_genes(IDS, [*SYMBOLS[:3], "CD3E"], name_a="a", name_b="b")
    assert (overlap.n_a, overlap.n_b, len(overlap.mapped)) == (4, 4, 3)
    assert overlap.lost_a == (IDS[3],)
    assert len(overlap.lost_b) == 1
    assert overlap.fraction == 0.75
    check_overlap(overlap)


def test_little_overlap_is_an_error_with_the_fix() -> None:
    with pytest.raises(GenePanelError, match="a is human, b is mouse"):
        check_overlap(
            compare_genes(SYMBOLS, ["Erbb2", "Krt5", "Eef1a1", "Actb"], name_a="a", name_b="b")
        )
    with pytest.raises(GenePanelError, match="species column"):
        check_overlap(compare_genes(IDS, ["made-up-1", "made-up-2"]))
    with pytest.raises(GenePanelError, match="0%"):
        check_overlap(compare_genes(["made-up-1"], ["made-up-2"]))


def test_a_panel_inside_a_transcriptome_overlaps_fully() -> None:
    assert compare_genes(IDS[:2], IDS).fraction == 1.0


def test_missing_genes_stay_missing(tmp_path: Path) -> None:
    write_st(tmp_path, *st_grid())
    section = read_section(
        SheetRow("s", tmp_path / "counts.tsv", spots=tmp_path / "spots.tsv", species="human")
    )
    assert section.n_genes == 4
    assert "ENSG00000198851" not in section.genes.index


def test_sections_compare_by_key(tmp_path: Path) -> None:
    write_st(tmp_path, *st_grid())
    section = read_section(
        SheetRow("s", tmp_path / "counts.tsv", spots=tmp_path / "spots.tsv", species="human")
    )
    assert compare_genes(section, IDS).fraction == 1.0


def test_gene_files_of_every_kind(tmp_path: Path) -> None:
    write_st(tmp_path, *st_grid())
    write_h5(tmp_path / "filtered_feature_bc_matrix.h5", toy())
    (tmp_path / "panel.txt").write_text("ERBB2\nKRT5\n\nCD3E\n")
    paths = [tmp_path / n for n in ("counts.tsv", "filtered_feature_bc_matrix.h5", "panel.txt")]
    overlaps = compare_gene_files(paths)
    assert [len(o.mapped) for o in overlaps] == [4, 2, 2]
    assert read_gene_file(tmp_path).keys == IDS
    with pytest.raises(GenePanelError, match="two or more"):
        compare_gene_files(paths[:1])
    with pytest.raises(InputNotFoundError):
        read_gene_file(tmp_path / "none.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(GenePanelError, match="one or more"):
        read_gene_file(tmp_path / "empty.txt")


def test_real_lists_agree(shared_data: Path) -> None:
    data = shared_data / "data"
    human, human_too, mouse = compare_gene_files(
        [
            data / "her2st/A1/section.h5ad",
            data / "her2st/C2/section.h5ad",
            data / "mob_st2k/MOB1/section.h5ad",
        ]
    )
    assert human.fraction > 0.95
    assert human_too.fraction == mouse.fraction == 0.0
    bulb = compare_gene_files(
        [data / "mob_st2k/MOB1/section.h5ad", data / "mob_st1k/Rep1/section.h5ad"]
    )
    assert bulb[0].fraction > 0.9
