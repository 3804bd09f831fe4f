"""Near-duplicates against brute force, and groups against connected components."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from affectdata.images import duplicates
from affectdata.images.duplicates import (
    MAX_BITS,
    assign_groups,
    find_across,
    find_edges,
    find_first_of_group,
    hash_views,
)
from affectdata.images.phash import VIEWS, perceptual_hashes, pixel_hash
from affectdata.reading.sample import draw_image
from affectdata.schema import EDGES

INVERSE = {"turn_90": "turn_270", "turn_270": "turn_90"}


def turn(rgb: np.ndarray, view: str) -> np.ndarray:
    if view in ("transpose", "transverse"):
        rgb = (np.rot90(rgb, 2) if view == "transverse" else rgb).transpose(1, 0, 2)
    else:
        rgb = {
            "identity": lambda a: a,
            "flip_h": np.fliplr,
            "flip_v": np.flipud,
            "turn_180": lambda a: np.rot90(a, 2),
            "turn_90": np.rot90,
            "turn_270": lambda a: np.rot90(a, 3),
        }[view](rgb)
    return np.ascontiguousarray(rgb)


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in ("image_id", "pixel_id", "phash", "phash_views")])
    return pa.Table.from_pylist(list(rows), schema=schema)


def row_of(image_id: str, rgb: np.ndarray) -> dict[str, Any]:
    upright, *turned = perceptual_hashes(rgb)
    return {
        "image_id": image_id,
        "pixel_id": pixel_hash(rgb),
        "phash": upright,
        "phash_views": "".join(turned),
    }


def hashed(image_id: str, views: Sequence[int], pixel_id: str | None = None) -> dict[str, Any]:
    upright, *turned = (f"{view:016x}" for view in views)
    pixels = pixel_id or f"pixels of {image_id}"
    return {"image_id": image_id, "pixel_id": pixels, "phash": upright, "phash_views": "".join(turned)}


# --- across parts


@pytest.mark.parametrize("view", VIEWS)
def test_a_near_duplicate_in_another_part_is_found_whichever_is_rotated(view: str) -> None:
    rgb = draw_image(np.random.default_rng(3), 60.0)
    others = [draw_image(np.random.default_rng(seed), 60.0) for seed in range(20, 26)]
    pair = [rgb, turn(touched_up(rgb), view)]
    for first, second in (pair, pair[::-1]):
        table = table_of([row_of(str(n), image) for n, image in enumerate([first, *others, second])])
        parts = np.array([0, 0, 0, 0, 0, 1, 1, 1])
        assert find_across(hash_views(table), parts).tolist() == [7]
        assert find_across(hash_views(table), np.zeros(8)).tolist() == []


@given(st.integers(0, 2**32 - 1))
def test_images_of_one_group_are_never_in_two_parts(seed: int) -> None:
    """Groups are formed in one order of rows and searched in another."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 2**63, (6, 1)) ^ (1 << rng.integers(0, 63, (6, 8)))
    views = np.concatenate([low, low ^ (1 << rng.integers(0, 63, low.shape))])
    table = table_of([hashed(str(100 + n), row.tolist()) for n, row in enumerate(views)])
    groups = assign_groups(table, find_edges(table))["group_id"].to_pylist()
    order = rng.permutation(len(table))
    parts = np.array([int(group) for group in groups])[order]
    assert not len(find_across(hash_views(table.take(pa.array(order))), parts))


# --- edges


def touched_up(rgb: np.ndarray) -> np.ndarray:
    """Return the image a little lighter: other pixels, the same appearance."""
    return np.clip(rgb.astype(np.int16) + 5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_a_rotated_near_duplicate_is_found_with_its_view(view: str, swapped: bool) -> None:
    rgb = draw_image(np.random.default_rng(3), 60.0)
    others = [row_of(f"c{seed}", draw_image(np.random.default_rng(seed), 60.0)) for seed in range(20, 40)]
    first, second = ("b", "a") if swapped else ("a", "b")
    edges = find_edges(
        table_of([row_of(first, rgb), *others, row_of(second, turn(touched_up(rgb), view))])
    ).to_pylist()
    assert len(edges) == 1
    edge = edges[0]
    assert (edge["image_id_a"], edge["image_id_b"], edge["kind"]) == ("a", "b", "near_duplicate")
    assert edge["distance_bits"] <= MAX_BITS
    # `second` is `view` of `first`; the inverse view maps it onto `first`.
    assert edge["view"] == (view if swapped else INVERSE.get(view, view))


@pytest.mark.parametrize("swapped", [False, True])
def test_the_view_maps_the_second_image_onto_the_first(swapped: bool) -> None:
    for view in VIEWS:
        rgb = draw_image(np.random.default_rng(5), 40.0)
        images = {"a": rgb, "b": turn(touched_up(rgb), view)}
        order = ("b", "a") if swapped else ("a", "b")
        edge = find_edges(table_of([row_of(name, images[name]) for name in order])).to_pylist()[0]
        back = turn(images["b"], edge["view"])
        assert back.shape == images["a"].shape, view
        assert np.abs(back.astype(int) - images["a"]).mean() < 6, view


def test_the_same_pixels_are_an_edge_of_their_own_kind() -> None:
    rgb = draw_image(np.random.default_rng(3), 60.0)
    edges = find_edges(table_of([row_of("b", rgb), row_of("a", rgb)]))
    assert edges.schema == EDGES
    assert edges.to_pylist() == [
        {
            "image_id_a": "a",
            "image_id_b": "b",
            "kind": "same_pixels",
            "distance_bits": 0,
            "view": "identity",
        }
    ]


def test_a_cluster_of_equal_hashes_is_a_chain_and_not_all_pairs() -> None:  # trap 16
    n = 400
    views = [0] * 8
    table = table_of([hashed(f"{index:04d}", views) for index in range(n)])
    edges = find_edges(table)
    assert len(edges) == n - 1
    assert set(assign_groups(table, edges)["group_id"].to_pylist()) == {"0000"}


def test_an_empty_table_has_no_edges() -> None:
    empty = table_of([])
    edges = find_edges(empty)
    assert edges.schema == EDGES and len(edges) == 0
    assert assign_groups(empty, edges)["group_id"].to_pylist() == []


def bits_apart(a: Sequence[int], b: Sequence[int]) -> int:
    return min((a[0] ^ view).bit_count() for view in b)


def brute_force(ids: Sequence[str], views: Sequence[Sequence[int]], max_bits: int) -> set[tuple[str, str]]:
    pairs = itertools.combinations(range(len(ids)), 2)
    return {
        (min(ids[i], ids[j]), max(ids[i], ids[j]))
        for i, j in pairs
        if bits_apart(views[i], views[j]) <= max_bits
    }


def components(ids: Sequence[str], pairs: set[tuple[str, str]]) -> dict[str, str]:
    group = {image_id: image_id for image_id in ids}
    for _ in ids:
        for a, b in pairs:
            group[a] = group[b] = min(group[a], group[b])
    return group


def flips(low: np.ndarray) -> list[int]:
    """Return eight hashes related like those of an image: sign patterns of an 8 × 8 block."""
    odd = np.where(np.arange(8) % 2, -1.0, 1.0)
    views = [low, low * odd, low * odd[:, None], low * odd * odd[:, None]]
    views += [view.T for view in views]
    return [int.from_bytes(np.packbits(view > 0).tobytes(), "big") for view in views]


@st.composite
def images(draw: st.DrawFn) -> list[list[int]]:
    """Draw hashes of up to 14 images, many of them rotated or slightly changed copies of others."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks = [rng.normal(size=(8, 8))]
    for _ in range(draw(st.integers(0, 13))):
        kind = draw(st.sampled_from(["new", "equal", "near", "turned"]))
        block = blocks[int(rng.integers(len(blocks)))].copy()
        if kind == "new":
            block = rng.normal(size=(8, 8))
        if kind == "turned":
            block = block.T * np.where(np.arange(8) % 2, -1.0, 1.0)
        if kind in ("near", "turned"):
            changed = rng.choice(64, int(rng.integers(1, 5)), replace=False)
            block.reshape(-1)[changed] *= -1
        blocks.append(block)
    return [flips(block) for block in blocks]


@given(images(), st.sampled_from([0, 2, 6, 10]), st.randoms(use_true_random=False))
def test_edges_and_groups_are_those_of_brute_force(
    views: list[list[int]], max_bits: int, random: Any
) -> None:
    ids = [f"{index:02d}" for index in range(len(views))]
    random.shuffle(ids)
    table = table_of([hashed(name, hashes) for name, hashes in zip(ids, views, strict=True)])
    edges = find_edges(table, max_bits)
    by_pair = {(edge["image_id_a"], edge["image_id_b"]): edge for edge in edges.to_pylist()}
    assert list(by_pair) == sorted(by_pair)
    by_id = dict(zip(ids, views, strict=True))
    expected = brute_force(ids, views, max_bits)
    for (a, b), edge in by_pair.items():
        assert a < b and (a, b) in expected
        distances = {
            name: (by_id[a][0] ^ view).bit_count() for name, view in zip(VIEWS, by_id[b], strict=True)
        }
        assert edge["distance_bits"] == min(distances.values()) == distances[edge["view"]]
    groups = assign_groups(table, edges)
    got = dict(zip(groups["image_id"].to_pylist(), groups["group_id"].to_pylist(), strict=True))
    assert got == components(ids, expected)
    distinct = {tuple(hashes) for hashes in views}
    if len(distinct) == len(views):
        assert set(by_pair) == expected


@given(images())
def test_small_blocks_find_the_same_edges(views: list[list[int]]) -> None:
    table = table_of([hashed(f"{index:02d}", hashes) for index, hashes in enumerate(views)])
    whole = find_edges(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_CELLS", 3)
        assert find_edges(table).equals(whole)


def test_views_are_read_in_the_order_of_their_names() -> None:
    rgb = draw_image(np.random.default_rng(3), 60.0)
    views = hash_views(table_of([row_of("a", rgb), row_of("b", rgb)]))
    assert views.dtype == np.uint64 and views.shape == (2, 8)
    assert [f"{view:016x}" for view in views[1]] == perceptual_hashes(rgb)


# --- groups


def grouped(ids: str, edges: Sequence[str], columns: dict[str, list[Any]], names: Sequence[str]) -> str:
    source = columns.get("source", ["s"] * len(ids))
    columns = {name: pa.array(cells) for name, cells in {**columns, "source": source}.items()}
    table = pa.table({"image_id": list(ids), **columns})
    rows = [(a, b, "near_duplicate", 0, "identity") for a, b in edges]
    made = pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * 5, schema=EDGES)
    return "".join(assign_groups(table, made, names)["group_id"].to_pylist())


@pytest.mark.parametrize(
    ("ids", "edges", "columns", "names", "groups"),
    [
        ("abcd", [], {}, [], "abcd"),
        ("abcd", ["ab", "cd"], {}, [], "aacc"),
        ("dcba", ["ab", "bc"], {}, [], "daaa"),  # transitive, named after the smallest id
        ("abcd", [], {"subject_id": ["x", None, "x", None]}, [], "abad"),  # null groups with nothing
        ("abc", [], {"subject_id": ["1", "1", "1"], "source": ["s", "t", "s"]}, [], "aba"),  # by source
        ("abcd", [], {"theme": ["t", "t", "u", None]}, [], "abcd"),  # only if requested
        ("abcd", [], {"theme": ["t", "t", "u", None]}, ["theme"], "aacd"),
        ("abcd", ["bc"], {"theme": ["t", "t", "u", None]}, ["theme"], "aaad"),
        (
            "abcd",
            [],
            {"theme": ["t", "t", "u", "u"], "artist": [None, "z", "z", None]},
            ["theme", "artist"],
            "aaaa",
        ),
        ("abc", [], {"age": [30, 31, 30]}, ["age"], "aba"),
        ("abc", [], {"theme": ["t", "t", "t"]}, ["no_such_column"], "abc"),
    ],
)
def test_groups(
    ids: str, edges: list[str], columns: dict[str, list[Any]], names: list[str], groups: str
) -> None:
    assert grouped(ids, edges, columns, names) == groups


def test_groups_over_chunks_are_the_same() -> None:
    parts = [
        pa.table({"image_id": list(ids), "source": ["s", "s"], "subject_id": ["x", "x"]})
        for ids in ("cd", "ab")
    ]
    groups = assign_groups(pa.concat_tables(parts), EDGES.empty_table())
    assert groups["group_id"].to_pylist() == ["a"] * 4


def test_an_existing_group_column_is_replaced_in_place() -> None:
    table = pa.table({"image_id": ["a", "b"], "group_id": ["old", "old"], "path": ["p", "q"]})
    again = assign_groups(table, EDGES.empty_table())
    assert again.column_names == table.column_names
    assert again["group_id"].to_pylist() == ["a", "b"]
    assert not again.schema.field("group_id").nullable


@given(st.integers(1, 30), st.data())
def test_components_are_those_of_scipy(n: int, data: st.DataObject) -> None:
    row = st.integers(0, n - 1)
    links = np.array(data.draw(st.lists(st.tuples(row, row), max_size=30)), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    smallest = np.unique(component, return_index=True)[1]
    assert np.array_equal(find_first_of_group(np.arange(n), links, []), smallest[component])
