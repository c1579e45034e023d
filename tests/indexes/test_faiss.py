from dataclasses import replace

import faiss
import numpy as np
import pytest

from stretrieve.errors import ChecksumError
from stretrieve.indexes import (
    ExactIndex,
    FaissIndex,
    Metric,
    build_index,
    load_recipe,
    read_index,
    recipe_names,
    rescore,
)
from stretrieve.indexes import faiss as module
from stretrieve.indexes.coarse import CoarseSearch
from stretrieve.testing.indexes import clustered_vectors, queries_near

FILES = sorted(set(recipe_names()) - {"exact"})


def small(name):
    recipe = load_recipe(name)
    return replace(recipe, n_lists=16, nprobe=6) if recipe.kind.is_inverted else recipe


@pytest.fixture(scope="module")
def vectors():
    return clustered_vectors()


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_same_results(vectors, name, tmp_path):
    index = build_index(vectors, small(name), metric=Metric.COSINE)
    digest = index.save(tmp_path / "a.faiss")
    again = read_index(
        tmp_path / "a.faiss", vectors, small(name), metric=Metric.COSINE, sha256=digest
    )
    queries = queries_near(vectors)
    one, two = index.search(queries, 10), again.search(queries, 10)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.scores, two.scores)


def test_small_batches_are_compared_by_a_matrix_product(vectors):
    """FAISS by itself reads every vector again for each query of a batch below 128,000 numbers."""
    faiss.cvar.distance_compute_blas_threshold = 128_000
    build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    limit = faiss.cvar.distance_compute_blas_threshold
    assert 1024 <= limit <= 8 * 256


@pytest.mark.parametrize("name", FILES)
def test_rebuilt_files_have_the_same_bytes(vectors, name, tmp_path):
    digests = {
        build_index(vectors, small(name), metric=Metric.COSINE).save(tmp_path / f"{i}.faiss")
        for i in range(2)
    }
    assert len(digests) == 1


@pytest.mark.parametrize("offset", [0, 40, -1])
def test_one_flipped_bit_is_noticed_before_the_file_is_parsed(
    vectors, tmp_path, monkeypatch, offset
):
    path = tmp_path / "a.faiss"
    digest = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE).save(path)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("parsed a damaged file"))
    with pytest.raises(ChecksumError, match="rebuild-indexes"):
        read_index(path, vectors, load_recipe("flat"), metric=Metric.COSINE, sha256=digest)


def test_a_file_of_other_vectors_is_refused(vectors, tmp_path):
    path = tmp_path / "a.faiss"
    recipe = load_recipe("flat")
    digest = build_index(vectors[:100], recipe, metric=Metric.COSINE).save(path)
    with pytest.raises(ChecksumError, match="got 100 vectors of 24; expected 3000 of 24"):
        read_index(path, vectors, recipe, metric=Metric.COSINE, sha256=digest)


@pytest.mark.parametrize("name", ["flat", "ivf_flat", "ivf_sq", "ivf_pq", "hnsw"])
def test_one_result_whatever_the_threads(vectors, name, monkeypatch):
    monkeypatch.setattr(rescore, "_SPAN_VALUES", 1000)
    index = build_index(vectors, small(name), metric=Metric.COSINE)
    queries = queries_near(vectors)
    before = faiss.omp_get_max_threads()
    results = []
    for threads in (1, 2, 3):
        faiss.omp_set_num_threads(threads)
        monkeypatch.setenv("OMP_NUM_THREADS", str(threads))
        results.append(index.search(queries, 10))
    faiss.omp_set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result.indices, results[0].indices)
        np.testing.assert_array_equal(result.scores, results[0].scores)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.99])
def test_a_flat_index_takes_a_wide_filter_as_an_id_selector(vectors, monkeypatch, share):
    passes = []
    flat_pass = module._flat_pass
    monkeypatch.setattr(module, "_flat_pass", lambda *a: passes.append(1) or flat_pass(*a))
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    allowed = np.random.default_rng(0).random(len(vectors)) < share
    index.search(queries_near(vectors), 10, allowed=allowed)
    assert len(passes) == (share < module.NARROW)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("n_allowed", [1, 3, 30, 300, 1500, 2700, 2970, 2997, 2999])
def test_a_filter_gives_what_the_exact_index_gives(vectors, name, n_allowed, monkeypatch):
    """From 0.03 % to all but one; blocks are small enough for several to be merged."""
    monkeypatch.setattr(module, "_PASS_ROWS", 700)
    index = build_index(vectors, small(name), metric=Metric.COSINE)
    allowed = np.zeros(len(vectors), dtype=np.bool_)
    allowed[np.random.default_rng(n_allowed).choice(len(vectors), n_allowed, replace=False)] = True
    queries = queries_near(vectors)
    truth = ExactIndex(vectors, metric=Metric.COSINE).search(queries, 10, allowed=allowed)
    found = index.search(queries, 10, allowed=allowed)
    np.testing.assert_array_equal(found.indices, truth.indices)
    np.testing.assert_array_equal(found.scores, truth.scores)


@pytest.mark.parametrize("name", FILES)
def test_a_filter_that_allows_everything_is_none(vectors, name):
    index = build_index(vectors, small(name), metric=Metric.COSINE)
    queries = queries_near(vectors)
    found = index.search(queries, 10, allowed=np.ones(len(vectors), dtype=np.bool_))
    np.testing.assert_array_equal(found.indices, index.search(queries, 10).indices)


@pytest.mark.parametrize("metric", list(Metric))
def test_lists_do_not_depend_on_the_batch(metric):
    """Whole numbers, so that many centroids are equally near."""
    rng = np.random.default_rng(0)
    centroids = rng.integers(-2, 3, size=(300, 6)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(60, 6)).astype(np.float32)
    coarse = CoarseSearch(centroids, metric, 20, coded=True)
    lists, values = coarse.lists(queries)
    for i in range(len(queries)):
        one, value = coarse.lists(queries[i : i + 1])
        np.testing.assert_array_equal(one[0], lists[i])
        np.testing.assert_array_equal(value[0], values[i])
    sign = -1 if metric is Metric.EUCLIDEAN else 1
    exact = (
        sign
        * np.asarray(
            [((c - queries) ** 2).sum(1) if sign < 0 else queries @ c for c in centroids]
        ).T
    )
    for i in range(len(queries)):
        expected = np.lexsort((np.arange(300), -exact[i]))[:20]
        np.testing.assert_array_equal(lists[i], expected)


@pytest.mark.parametrize("name", ["ivf_flat", "ivf_sq"])
def test_an_inverted_file_gives_the_exact_order_of_what_its_lists_hold(vectors, name):
    """The oracle restricted to the vectors in the lists that are looked at."""
    import faiss

    index = build_index(vectors, replace(small(name), refine=50), metric=Metric.COSINE)
    queries = queries_near(vectors)
    found = index.search(queries, 10)
    lists, _ = index._coarse.lists(index.scorer.for_search(queries))
    inverted = index._index.invlists
    exact = ExactIndex(vectors, metric=Metric.COSINE)
    for row, chosen in enumerate(lists):
        held = np.zeros(len(vectors), dtype=np.bool_)
        for number in chosen:
            size = inverted.list_size(int(number))
            held[faiss.rev_swig_ptr(inverted.get_ids(int(number)), size)] = True
        truth = exact.search(queries[row : row + 1], 10, allowed=held)
        np.testing.assert_array_equal(found.scores[row], truth.scores[0])
        np.testing.assert_array_equal(found.indices[row], truth.indices[0])


def test_a_null_query_is_as_near_to_all(vectors):
    index = build_index(vectors, load_recipe("flat"), metric=Metric.COSINE)
    found = index.search(np.zeros((1, 24), dtype=np.float32), 4)
    np.testing.assert_array_equal(found.indices, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(found.scores, np.zeros((1, 4)))


def test_distances_are_not_squared():
    vectors = np.array([[0, 0], [3, 4]], dtype=np.float32)
    index = build_index(vectors, load_recipe("flat"), metric=Metric.EUCLIDEAN)
    found = index.search(np.zeros((1, 2), dtype=np.float32), 2)
    np.testing.assert_array_equal(found.scores, [[0.0, -5.0]])


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["flat", "ivf_flat", "ivf_sq", "ivf_pq"])
def test_the_gpu_gives_what_the_cpu_gives(vectors, name, monkeypatch):
    if not faiss.get_num_gpus():
        pytest.skip("no GPU")
    queries = queries_near(vectors)
    on_gpu = build_index(vectors, small(name), metric=Metric.COSINE)
    monkeypatch.setattr(module, "on_gpus", lambda *_: None)
    on_cpu = FaissIndex(on_gpu.scorer, on_gpu._index, on_gpu.recipe)
    one, two = on_gpu.search(queries, 10), on_cpu.search(queries, 10)
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_array_equal(one.scores, two.scores)
