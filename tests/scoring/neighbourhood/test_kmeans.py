"""K-means against a plain one, and what prices do to the sizes of clusters."""

import numpy as np
import pytest

from chaffinch.scoring.neighbourhood import kmeans
from chaffinch.scoring.neighbourhood.embeddings import unit
from chaffinch.scoring.neighbourhood.kmeans import Clusters, fit
from chaffinch.scoring.neighbourhood.search import Search

UNEVEN = 1e9


def around(centres: np.ndarray, counts: list[int], spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around centres, in a random order, and which centre each is around."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    d = centres.shape[1]
    vectors, _ = unit(centres[labels] + spread / np.sqrt(d) * rng.standard_normal((len(labels), d)))
    return vectors.astype(np.float16), labels


def centres(k: int, d: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((k, d)))[0]


def plain(vectors: np.ndarray, starts: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means as it stands in the book, in float64."""
    points, middle = np.float64(unit(vectors)[0]), np.float64(starts)
    for _ in range(iterations):
        labels = np.argmax(points @ middle.T, axis=1)
        middle = np.stack([points[labels == one].sum(axis=0) for one in range(len(middle))])
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    return middle, labels


def sizes(clusters: Clusters, vectors: np.ndarray) -> np.ndarray:
    return np.bincount(clusters.assign(unit(vectors)[0], Search())[0], minlength=len(clusters))


def test_planted_clusters_are_found():
    vectors, labels = around(centres(8, 64), [200] * 8, 0.5, 1)
    clusters = fit(vectors, 24, UNEVEN, Search())  # random starts may miss one of eight, but hardly with three for each
    found, _ = clusters.assign(unit(vectors)[0], Search())
    assert all(len(np.unique(labels[found == one])) == 1 for one in np.unique(found))
    np.testing.assert_allclose(np.linalg.norm(clusters.centroids, axis=1), 1, atol=1e-6)


def test_equals_a_plain_k_means():
    vectors, _ = around(centres(12, 32), [100] * 12, 1.5, 2)
    starts = kmeans._starts(vectors, 5, Search())
    wanted, labels = plain(vectors, starts, kmeans.ITERATIONS)
    clusters = fit(vectors, 5, UNEVEN, Search())
    np.testing.assert_allclose(clusters.centroids, wanted, atol=1e-5)
    assert np.array_equal(
        clusters.assign(unit(vectors)[0], Search())[0], np.argmax(unit(vectors)[0] @ wanted.T, axis=1)
    )
    assert len(np.unique(labels)) == 5


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(kmeans, "_ROWS", 500)
    vectors, _ = around(centres(30, 128), [1000] + [60] * 29, 1.0, 3)
    one, many = fit(vectors, 20, 1.2, Search()), fit(vectors, 20, 1.2, Search("cpu", 5))
    assert np.array_equal(one.centroids, many.centroids)
    assert np.array_equal(one.prices, many.prices)
    assert one.prices.max() > 0


def test_prices_even_out_the_clusters():
    rng = np.random.default_rng(4)
    crowded, _ = unit(centres(1, 16)[0] + 0.5 * rng.standard_normal((4000, 16)))
    vectors = rng.permutation(np.concatenate([crowded, centres(1000, 16, 5)])).astype(np.float16)
    uneven, even = fit(vectors, 20, UNEVEN, Search()), fit(vectors, 20, 1.3, Search())
    assert np.array_equal(uneven.centroids, even.centroids)
    assert not uneven.prices.any()
    assert (even.prices >= 0).all()
    assert sizes(uneven, vectors).max() > 1.3 * 250
    assert sizes(even, vectors).max() <= np.ceil(1.3 * 250)


@pytest.mark.parametrize("balance", [1.0, 2.0])
def test_near_duplicates_are_not_torn_apart(balance):
    vectors, labels = around(centres(60, 64), [1500] + [25] * 59, 0.05, 6)
    clusters = fit(vectors, 20, balance, Search())
    found, _ = clusters.assign(unit(vectors)[0], Search())
    assert len(np.unique(found[labels == 0])) == 1


def test_a_cluster_that_lost_all_starts_anew():
    # The third start lies between the others' points and beside them: nobody is nearest to it.
    angles = np.radians([0, 90, 45, 0, 1, 2, 90, 91, 180, 181])
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(10)], axis=1).astype(np.float16)
    clusters = fit(np.concatenate([vectors[:2], vectors[3:]]), 3, UNEVEN, Search())
    found, _ = clusters.assign(unit(vectors)[0], Search())
    assert len(np.unique(found)) == 3


def test_fewer_vectors_than_clusters_and_all_alike():
    vectors, _ = around(centres(3, 8), [1, 1, 1], 0.1, 7)
    assert len(fit(vectors, 10, 2.0, Search())) == 3
    alike = np.repeat(vectors[:1], 50, axis=0)
    clusters = fit(alike, 4, 2.0, Search())
    assert len(np.unique(clusters.assign(unit(alike)[0], Search())[0])) == 1
    assert np.isfinite(clusters.centroids).all()


def test_belonging_is_the_largest_cosine_minus_price():
    clusters = Clusters(centres(40, 32), np.random.default_rng(8).uniform(0, 0.3, 40).astype(np.float32))
    vectors = centres(500, 32, 9)
    found, cosines = clusters.assign(vectors, Search())
    products = vectors @ clusters.centroids.T
    assert found.tolist() == np.argmax(products - clusters.prices, axis=1).tolist()
    np.testing.assert_allclose(cosines, products[np.arange(500), found], atol=1e-6)
    alone = [clusters.assign(vectors[row : row + 1], Search())[0][0] for row in range(50)]
    assert alone == found[:50].tolist()
