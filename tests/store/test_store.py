from dataclasses import replace

import numpy as np
import pytest

from stretrieve.errors import ChecksumError, GenePanelError, MismatchError, SectionError, ShapeError
from stretrieve.store import Equals, SectionRecord, SpotStore
from stretrieve.store import store as module
from stretrieve.store.lance import LanceTable

from .conftest import DIMS, GENES, gene_table, make_record, make_rows


def test_what_is_written_is_read_back(store):
    rows = make_rows()
    record = store.append_section(make_record("s1"), rows)
    assert record.n_spots == 6
    back = store.section_rows("s1")
    ordered = rows.sorted("s1")
    assert back.spot_ids == sorted(rows.spot_ids)
    assert back.thumbnails == ordered.thumbnails
    assert (back.counts != ordered.counts).nnz == 0
    for name in DIMS:
        np.testing.assert_array_equal(back.embeddings[name], ordered.embeddings[name])
    for name in ("xy", "xy_um", "array_xy"):
        np.testing.assert_array_equal(getattr(back, name), getattr(ordered, name))
    assert back.digests("s1") == record.digests == store.sections()[0].digests


def test_rows_come_in_the_order_asked_for_with_repeats(store):
    rows = make_rows()
    store.append_section(make_record("s1"), rows)
    table = store.spot_table()
    assert table.column("spot_uid").to_pylist() == sorted(f"s1/{spot}" for spot in rows.spot_ids)
    ids = table.column("_rowid").to_numpy()[[4, 0, 4, 2]]
    ordered = rows.sorted("s1")
    expected = ordered.counts[[4, 0, 4, 2]].toarray()
    np.testing.assert_array_equal(store.expression(ids).toarray(), expected)
    assert store.thumbnails(ids) == [ordered.thumbnails[i] for i in (4, 0, 4, 2)]


def test_the_digest_does_not_depend_on_the_order_of_genes_and_spots(store, tmp_path):
    rows = make_rows()
    order = np.random.default_rng(3).permutation(len(GENES))
    shuffled = replace(rows, counts=rows.counts[:, order], genes=[GENES[i] for i in order])
    spots = np.array([3, 1, 0, 5, 4, 2])
    shuffled = replace(
        shuffled,
        spot_ids=[rows.spot_ids[i] for i in spots],
        counts=shuffled.counts[spots],
        thumbnails=[rows.thumbnails[i] for i in spots],
        embeddings={k: v[spots] for k, v in rows.embeddings.items()},
        **{name: getattr(rows, name)[spots] for name in ("xy", "xy_um", "array_xy")},
    )
    other = SpotStore.create(str(tmp_path / "o"), dims=DIMS, genes=gene_table(reversed(GENES)))
    a = store.append_section(make_record("s1"), rows)
    b = other.append_section(make_record("s1"), shuffled)
    assert a.digest == b.digest


@pytest.mark.parametrize("what", ["count", "vector", "thumbnail", "position", "name", "gene"])
def test_the_digest_depends_on_every_value(what):
    rows = make_rows()
    other = make_rows()
    if what == "count":
        other.counts.data[3] += 1
    if what == "vector":
        other.embeddings["image_embedding"][2, 1] += np.float32(1e-6)
    if what == "thumbnail":
        other.thumbnails[1] += b"!"
    if what == "position":
        other.xy_um[0, 0] += 1e-9
    if what == "name":
        other.spot_ids[0] = "other"
    if what == "gene":
        other = replace(other, genes=["X", *GENES[1:]])
    assert rows.sorted("s").digests("s") != other.sorted("s").digests("s")


def test_a_gene_that_is_not_measured_is_missing_and_not_zero(store):
    store.append_section(make_record("s2", n_genes=5), make_rows(genes=GENES[7:]))
    store.append_section(make_record("s1"), make_rows(seed=1))
    measured = store.measured()
    np.testing.assert_array_equal(measured.sum(axis=1), [12, 5])
    np.testing.assert_array_equal(np.flatnonzero(measured[1]), range(7, 12))


def test_genes_are_only_ever_appended(store):
    store.append_section(make_record("s1"), make_rows())
    assert store.add_genes(gene_table(["A", "G3", "Z"])) == 2
    assert list(store.genes.index) == [*GENES, "A", "Z"]
    store.append_section(make_record("s2", n_genes=2), make_rows(genes=["Z", "A"]))
    measured = store.measured()
    assert measured.shape == (2, 14)
    assert not measured[0, 12:].any()
    assert measured[1, 12:].all()
    with pytest.raises(GenePanelError, match="'A' twice"):
        store.add_genes(gene_table(["A", "A"]))


@pytest.mark.parametrize(("name", "message"), [("s1", "already"), ("a/b", "slash"), ("", "slash")])
def test_names_that_are_refused(store, name, message):
    store.append_section(make_record("s1"), make_rows())
    with pytest.raises(SectionError, match=message):
        store.append_section(make_record(name), make_rows())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(store, value):
    rows = make_rows()
    rows.embeddings["image_embedding"][1, 2] = value
    with pytest.raises(SectionError, match="1 spots that are not finite"):
        store.append_section(make_record("s1"), rows)
    assert store.n_spots == 0


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ShapeError):
        replace(make_rows(), spot_ids=["a"])


def test_an_old_version_stays_as_it_was(store):
    store.append_section(make_record("s1"), make_rows())
    before = store.versions
    store.append_section(make_record("s2"), make_rows(seed=2))
    store.remove_sections(["s1"])
    pinned = SpotStore(store.uri, versions=before)
    assert [record.section for record in pinned.sections()] == ["s1"]
    assert pinned.n_spots == 6
    assert [record.section for record in store.sections()] == ["s2"]
    store.restore(before)
    assert [record.section for record in SpotStore(store.uri).sections()] == ["s1"]


def test_spots_of_an_interrupted_write_are_discarded(store, monkeypatch):
    store.append_section(make_record("it's"), make_rows())

    def stop(name):
        if name.startswith("append section"):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "crash_point", stop)
    with pytest.raises(KeyboardInterrupt):
        store.append_section(make_record("s2"), make_rows(seed=2))
    monkeypatch.undo()
    again = SpotStore(store.uri)
    assert again.n_spots == 12
    again.discard_uncommitted()
    assert again.n_spots == 6
    assert [record.section for record in again.sections()] == ["it's"]


def test_the_primary_key_is_declared(store):
    assert not store._spots.schema.field("spot_uid").nullable
    rows = make_rows()
    store.append_section(make_record("s1"), rows)
    table = store._spots._table
    data = table.search().to_arrow()
    table.merge_insert("spot_uid").when_not_matched_insert_all().execute(data)
    assert store.n_spots == 6


def test_a_changed_count_is_noticed_when_it_is_read(store):
    store.append_section(make_record("s1"), make_rows())
    table = store._spots._table
    table.update(where="spot_uid = 's1/9x1'", values={"gene_counts": [7] * 6})
    ids = SpotStore(store.uri).spot_table().column("_rowid").to_numpy()
    with pytest.raises(ChecksumError, match="counts in the store"):
        SpotStore(store.uri).expression(ids)
    table.update(where="spot_uid = 's1/8x1'", values={"thumbnail": b"?"})
    ids = SpotStore(store.uri).spot_table().column("_rowid").to_numpy()
    with pytest.raises(ChecksumError, match="thumbnails in the store: got 1 rows"):
        SpotStore(store.uri).thumbnails(ids)


def test_rows_that_are_gone_are_noticed(store):
    store.append_section(make_record("s1"), make_rows())
    ids = store.spot_table().column("_rowid").to_numpy()
    store._spots.delete(Equals("spot_uid", "s1/9x1"))
    with pytest.raises(MismatchError, match="verify"):
        store.expression(ids)


def test_no_store_there(tmp_path):
    assert not SpotStore.exists(str(tmp_path / "none"))
    with pytest.raises(MismatchError, match="table 'spots'"):
        SpotStore(str(tmp_path / "none"))


RustPanic = type("RustPanic", (Exception,), {})
"""What LanceDB raises, under this name, where its own code gave up over damaged bytes."""


class Damaged:
    """A table none of whose attributes can be read."""

    def __getattr__(self, name):
        raise RustPanic(f"rust future panicked over {name}")


@pytest.mark.parametrize("read", ["version", "schema", "__len__", "indexed"])
def test_a_panic_over_damaged_bytes_is_a_typed_error(read):
    table = LanceTable.__new__(LanceTable)
    table.name, table._table = "spots", Damaged()
    with pytest.raises(MismatchError, match="ref verify"):
        getattr(table, read)()


def test_a_damaged_row_of_a_section_is_a_typed_error():
    row = make_record("A").to_arrow(["G1"], {"G1": 0}).to_pylist()[0]
    assert SectionRecord.from_row(row).section == "A"
    with pytest.raises(ChecksumError, match="section 'A'"):
        SectionRecord.from_row({**row, "digests": row["digests"].replace("{", "\x03", 1)})
