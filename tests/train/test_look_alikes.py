"""train.look_alikes and train.groups: candidates, proof, what is kept, and the table of groups."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from affectdata.images.decode import encode
from affectdata.train.groups import describe_pairs, write_groups
from affectdata.train.look_alikes import SamePair, nearest_pairs, prove_pairs
from tests.images.test_same_image import _scene as scene

IDS = [f"{number:064x}" for number in (9, 3, 5, 7)]


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Two scenes, a crop of the first, and the second mirrored."""
    first, second = scene(1), scene(2)
    images = [first, second, first[40:280, 60:380], np.ascontiguousarray(second[:, ::-1])]
    return [encode(image, "jpeg", 90) for image in images]


def test_the_five_nearest_of_other_groups_are_candidates() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(9, 4)), rng.normal(size=(20, 4))
    group = np.arange(20) % 3
    pairs = nearest_pairs(left, right, np.zeros(9, int), group)
    unit = right / np.linalg.norm(right, axis=1, keepdims=True)
    for row in range(9):
        cosine = np.where(group == 0, -np.inf, unit @ left[row])
        assert set(pairs[pairs[:, 0] == row, 1]) == set(np.argsort(-cosine)[:5])


def test_fewer_images_than_neighbours() -> None:
    features, group = np.eye(3), np.arange(3)
    assert len(nearest_pairs(features, features, group, group)) == 6
    assert nearest_pairs(features, features[:0], group, group[:0]).shape == (0, 2)
    assert nearest_pairs(features, features, np.zeros(3), np.zeros(3)).shape == (0, 2)


def test_pairs_are_proven_once(files: list[bytes], tmp_path: Path) -> None:
    pairs = np.array([(0, 1), (2, 0), (0, 2), (1, 3), (2, 3)])
    read: list[int] = []

    def reader(row: int) -> bytes:
        read.append(row)
        return files[row]

    found = prove_pairs(pairs, IDS, reader, tmp_path, workers=2)
    assert {(pair.rows, pair.mirrored) for pair in found} == {((0, 2), False), ((1, 3), True)}
    assert sorted(read) == [0, 1, 2, 3]
    assert [pair.inliers for pair in found] == sorted((pair.inliers for pair in found), reverse=True)

    def fail(row: int) -> bytes:
        raise AssertionError("an image was read again")

    assert prove_pairs(pairs, IDS, fail, tmp_path) == found
    # The ids decide, not the rows.
    assert prove_pairs(3 - pairs, IDS[::-1], fail, tmp_path)[0].inliers == found[0].inliers
    assert prove_pairs(pairs, IDS, files.__getitem__, None) == found


def test_the_table_has_the_connected_images(tmp_path: Path) -> None:
    table = pa.table({"image_id": IDS, "source": ["made"] * 4, "path": [f"{n}.png" for n in range(4)]})
    pairs = [SamePair((0, 2), 40, False), SamePair((2, 3), 12, True)]
    path = tmp_path / "groups.csv"
    assert write_groups(table, pairs, path) == 1
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], row["group"]) for row in rows] == [(IDS[row], IDS[2]) for row in (2, 3, 0)]
    assert [row["path"] for row in rows] == ["2.png", "3.png", "0.png"]
    described = describe_pairs(table, pairs).to_pylist()
    assert [(row["path_a"], row["path_b"], row["inliers"], row["mirrored"]) for row in described] == [
        ("0.png", "2.png", 40, False),
        ("2.png", "3.png", 12, True),
    ]
    assert write_groups(table, [], path) == 0
    assert path.read_text(encoding="utf-8") == "image_id,group,source,path\n"
