"""Pairs of hashes against brute force: none is missed or repeated, memory stays bounded."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affectdata.images import hamming
from affectdata.images.duplicates import MAX_BITS, find_edges
from affectdata.images.hamming import find_near
from affectdata.images.phash import VIEWS
from tests.images.test_duplicates import hashed, table_of


def pairs(a: np.ndarray, b: np.ndarray | None, max_bits: int, candidates: int = 1 << 16) -> list[tuple]:
    blocks = find_near(a, b, max_bits, candidates)
    return sorted(pair for i, j in blocks for pair in zip(i.tolist(), j.tolist(), strict=True))


def brute_force(a: np.ndarray, b: np.ndarray | None, max_bits: int) -> list[tuple]:
    apart = np.bitwise_count(a[:, None] ^ (a if b is None else b)[None])
    i, j = np.nonzero(apart <= max_bits)
    return [(x, y) for x, y in zip(i.tolist(), j.tolist(), strict=True) if b is not None or x < y]


@st.composite
def hashes(draw: st.DrawFn) -> np.ndarray:
    """Draw up to 60 hashes, each within some bits of one of a few centres; some are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    centres = rng.integers(0, 2**64, draw(st.integers(1, 4)), np.uint64)
    drawn = centres[rng.integers(len(centres), size=draw(st.integers(0, 60)))]
    for _ in range(draw(st.integers(0, 8))):
        drawn = drawn ^ (np.uint64(1) << rng.integers(0, 64, len(drawn), np.uint64))
    return drawn


@given(
    hashes(),
    st.none() | hashes(),
    st.sampled_from([0, 1, 6, 8, 15, 63, 64]),
    st.integers(0, 4),
    st.sampled_from([1, 7, 1 << 16]),
)
def test_pairs_are_those_of_brute_force(
    a: np.ndarray, b: np.ndarray | None, max_bits: int, most_bands: int, candidates: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "_MOST_BANDS", most_bands)
        patch.setattr(hamming, "_TABLE_COST", 0)  # so that few hashes are keyed on several bands
        patch.setattr(hamming, "_KEY_COST", 1e-4)  # not 0: tables of 2**64 keys would be chosen
        patch.setattr(hamming, "_HASH_COST", 0)
        patch.setattr(hamming, "_BLOCK", 13)
        patch.setattr(hamming, "_RANGE", 16)
        assert pairs(a, b, max_bits, candidates) == brute_force(a, b, max_bits)


@pytest.mark.parametrize(
    ("n", "max_bits", "n_bands", "n_keyed"),
    [
        (100, 6, 6, 0),
        (1 << 20, 6, 8, 2),
        (10_000_000, 6, 9, 3),
        (10_000_000, 8, 11, 3),
        (49_999_999, 6, 9, 3),
        (100_000_000, 6, 10, 4),
    ],
)
def test_more_hashes_are_keyed_on_more_bands(n: int, max_bits: int, n_bands: int, n_keyed: int) -> None:
    data = np.random.default_rng(0).bytes(n + 8)
    many = np.ndarray((n,), np.uint64, buffer=data, strides=(1,))  # a byte for each hash, not eight
    bands, keyed = hamming._choose_bands(many, many, max_bits)
    assert (len(bands), keyed) == (n_bands, n_keyed)
    assert sum(width for _, width in bands) == 64


@pytest.mark.slow
def test_four_bands_in_a_key_find_what_three_find(monkeypatch: pytest.MonkeyPatch) -> None:
    n, max_bits = 2000, 10  # bands of 4 and 5 bits, so that the tables are small
    hashes = planted(n)
    other = hashes[::-1] ^ np.uint64(1 << 40 | 1)
    expected = [brute_force(hashes, b, max_bits) for b in (None, other)]
    assert len(expected[0]) >= n // 2
    for n_keyed in (3, 4):
        bands = hamming._cut_bits(max_bits + n_keyed)
        monkeypatch.setattr(hamming, "_choose_bands", lambda *_, chosen=(bands, n_keyed): chosen)
        assert [pairs(hashes, b, max_bits) for b in (None, other)] == expected


@pytest.mark.slow
def test_a_key_shared_by_many_hashes_does_not_fill_the_memory() -> None:
    rng = np.random.default_rng(0)
    n = 6000  # 18 million comparisons in one bucket of several tables
    shared = np.unique(rng.integers(0, 2**32, n, np.uint64))
    tracemalloc.start()
    try:
        n_found = sum(len(i) for i, _ in find_near(shared, None, 6))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_found == len(brute_force(shared, None, 6)) > 0
    assert peak < 16 << 20


def views_of(blocks: np.ndarray) -> np.ndarray:
    """The eight hashes of each image, (n, 8), from the signs of its 8 × 8 block."""
    odd = np.where(np.arange(8) % 2, -1.0, 1.0)
    upright = [blocks, blocks * odd, blocks * odd[:, None], blocks * odd * odd[:, None]]
    views = np.stack([*upright, *(view.transpose(0, 2, 1) for view in upright)], axis=1) > 0
    return np.packbits(views.reshape(len(blocks), 8, 64), axis=2).view(">u8")[:, :, 0].astype(np.uint64)


@pytest.mark.slow
def test_edges_of_twenty_thousand_are_those_of_brute_force_over_all_views() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    blocks = rng.normal(size=(n, 8, 8))
    for is_rotated, half in enumerate((slice(n // 2, 3 * n // 4), slice(3 * n // 4, n))):
        like = blocks[rng.integers(n // 2, size=n // 4)]
        blocks[half] = like.transpose(0, 2, 1) * np.where(np.arange(8) % 2, -1.0, 1.0) if is_rotated else like
    views = views_of(blocks + rng.normal(size=blocks.shape) * 0.06)
    _, once = np.unique(views[:, 0], return_index=True)  # equal hashes are chains, tested elsewhere
    views = views[np.sort(once)]
    edges = find_edges(
        table_of([hashed(f"{index:05d}", hashes) for index, hashes in enumerate(views.tolist())])
    )
    expected = []
    for start in range(0, len(views), 100):
        best = np.full((len(views[start : start + 100]), len(views)), 255, np.uint8)
        for view in range(8):
            apart = np.bitwise_count(views[start : start + 100, 0][:, None] ^ views[:, view].copy())
            np.minimum(best, apart, out=best)
        for i, j in np.argwhere(best <= MAX_BITS).tolist():
            if start + i < j:
                bits = [(int(views[start + i, 0]) ^ int(view)).bit_count() for view in views[j]]
                expected.append((start + i, j, min(bits), VIEWS[bits.index(min(bits))]))
    edges_found = [
        (int(row["image_id_a"]), int(row["image_id_b"]), row["distance_bits"], row["view"])
        for row in edges.to_pylist()
    ]
    assert len(expected) > n // 4
    assert {0, 2, 4, 6} <= {bits for *_, bits, _ in expected} and {"identity", "turn_90"} <= {
        view for *_, view in expected
    }
    assert edges_found == expected


def planted(n: int) -> np.ndarray:
    """n hashes, in pairs of neighbours 1 to 6 bits apart; other pairs are further apart (checked below)."""
    rng = np.random.default_rng(0)
    hashes = np.repeat(rng.integers(0, 2**64, n // 2, np.uint64), 2)
    for row in range(1, n, 2):
        bits = rng.choice(64, 1 + row // 2 % MAX_BITS, replace=False)
        hashes[row] ^= np.bitwise_xor.reduce(np.uint64(1) << bits.astype(np.uint64))
    return hashes


@pytest.mark.slow
@pytest.mark.parametrize("most_bands", [2, 3])
def test_each_of_a_hundred_thousand_planted_hashes_is_found_once(
    most_bands: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 100_000
    hashes = planted(n)
    order = np.random.default_rng(1).permutation(n)
    monkeypatch.setattr(hamming, "_RANGE", n // 4)
    bands = hamming._cut_bits(MAX_BITS + most_bands)
    monkeypatch.setattr(hamming, "_choose_bands", lambda *_: (bands, most_bands))
    tasks: list[object] = []
    real = hamming.map_ordered

    def count(search: object, given: object, *rest: object) -> object:
        tasks.extend(given := list(given))  # type: ignore[call-overload]
        return real(search, given, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(hamming, "map_ordered", count)
    blocks = find_near(hashes[order], None, MAX_BITS, workers=2)
    found = np.concatenate([np.stack(block) for block in blocks], axis=1)
    rows = np.sort(order[found], axis=0)
    assert len(tasks) == 4 * math.comb(MAX_BITS + most_bands, most_bands)
    assert (rows[0] % 2 == 0).all() and (rows[1] == rows[0] + 1).all()  # no other pair is so near
    assert np.array_equal(np.sort(rows[0]), np.arange(0, n, 2))  # each once
