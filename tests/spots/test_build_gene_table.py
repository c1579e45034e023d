"""The script that builds the table of gene names, on small files in the layouts of its sources."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build_gene_table.py"
GTF = """##description: evidence-based annotation
chr1\tHAVANA\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_type "x"; gene_name "NEW1";
chr1\tHAVANA\ttranscript\t1\t2\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_name "NEW1";
chr1\tHAVANA\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000002.1"; gene_name "TWIN";
chr1\tHAVANA\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000003.1"; gene_name "TWIN";
chr1\tHAVANA\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000004.1"; gene_name "ENSG00000000004";
chr1\tHAVANA\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000005.1"; gene_name "SEPTIN9";
"""
OLDER = (
    "ENSG00000000001,OLD1,1,100\n"
    "ENSG00000000007,SEPTIN9,1,1\n"
    "ENSG00000000002,TWIN_ENSG00000000002,1,1\n"
)
HGNC = (
    "hgnc_id\tsymbol\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    'HGNC:1\tNEW1\tApproved\t"NICK|OLD1"\tOLDER1\tENSG00000000001\n'
    "HGNC:2\tTWIN\tApproved\t\t\tENSG00000000003\n"
    "HGNC:3\tGONE\tEntry Withdrawn\tX1\tY1\tENSG00000000001\n"
    "HGNC:4\tFORMER\tApproved\t\t\tENSG00000000005\n"
    "HGNC:5\tNOWHERE\tApproved\tLOST1\t\t\n"
)
MGI = (
    "MGI Accession ID\tChr\tcM Position\tgenome coordinate start\tgenome coordinate end\tstrand\t"
    "Marker Symbol\tStatus\tMarker Name\tMarker Type\tFeature Type\tMarker Synonyms (pipe-separated)\n"
    "MGI:1\t1\t1\t1\t2\t+\tSeptin4\tO\tseptin 4\tGene\tprotein coding gene\tBradeion|ARTS\n"
    "MGI:2\t1\t1\t1\t2\t+\tNovel1\tO\tx\tQTL\tx\tQ1\n"
)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_gene_table", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(script: ModuleType, folder: Path) -> Path:
    (folder / "new.gtf.gz").write_bytes(gzip.compress(GTF.encode(), mtime=0))
    (folder / "old.csv").write_text(OLDER)
    (folder / "hgnc.txt").write_text(HGNC)
    (folder / "mgi.rpt").write_text(MGI)
    (folder / "mouse.csv").write_text(
        "ENSMUSG00000000001,Septin4,1,1\nENSMUSG00000000002,Novel1,1,1\n"
    )
    out = folder / "genes.parquet"
    arguments = [str(out), "--date", "2026-01-02"]
    for species, release, name in (
        ("human", "48", "new.gtf.gz"),
        ("human", "38", "old.csv"),
        ("mouse", "M37", "mouse.csv"),
    ):
        arguments += ["--genes", species, release, str(folder / name)]
    arguments += [
        "--hgnc",
        "2026-01",
        str(folder / "hgnc.txt"),
        "--mgi",
        "2026-01",
        str(folder / "mgi.rpt"),
    ]
    assert script.main(arguments) == 0
    return out


def names(path: Path) -> set[tuple[str, int, str, int]]:
    table = pq.read_table(path).to_pydict()
    return set(zip(table["species"], table["kind"], table["name"], table["gene"], strict=True))


def test_names_of_every_source(script: ModuleType, tmp_path: Path) -> None:
    assert names(build(script, tmp_path)) == {
        ("human", 0, "NEW1", 1),
        ("human", 0, "TWIN", 3),  # HGNC says which of the two
        ("human", 0, "SEPTIN9", 5),
        ("human", 1, "OLD1", 1),
        ("human", 1, "OLDER1", 1),
        ("human", 1, "FORMER", 5),
        ("human", 1, "SEPT9", 5),
        ("human", 2, "NICK", 1),
        ("human", 3, "ENSG00000000007", 5),
        ("mouse", 0, "Septin4", 1),
        ("mouse", 0, "Novel1", 2),
        ("mouse", 1, "Sept4", 1),
        ("mouse", 2, "Bradeion", 1),
        ("mouse", 2, "ARTS", 1),
    }


def test_sources_are_recorded_and_the_bytes_are_the_same_twice(
    script: ModuleType, tmp_path: Path
) -> None:
    one = build(script, tmp_path).read_bytes()
    info = json.loads(pq.read_schema(tmp_path / "genes.parquet").metadata[b"stretrieve"])
    assert info["date"] == "2026-01-02"
    assert [s["release"] for s in info["sources"]] == ["48", "38", "M37", "2026-01", "2026-01"]
    assert build(script, tmp_path).read_bytes() == one


def test_unknown_species(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main([str(tmp_path / "x"), "--date", "d", "--genes", "yeast", "1", "f"])
    assert "yeast" in capsys.readouterr().err
