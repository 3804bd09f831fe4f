"""Whether two images are versions of one: cropped, mirrored, framed, slightly rotated, or re-encoded.

SIFT points of both, matched by Lowe's ratio test, and a similarity transform fitted to the matches by RANSAC.
Images of the same scene, and series of one subject, have few matches that fit one transform.

Lowe (2004), "Distinctive image features from scale-invariant keypoints"; Arandjelović & Zisserman (2012),
"Three things everyone should know to improve object retrieval", for the square roots of the descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from affectdata.images.decode import resize

MIN_INLIERS = 10  # from here on two images are the same
_LONG_SIDE_PX = 320
_N_POINTS = 300
_RATIO = 0.8  # distance to the nearest point / distance to the second nearest
_MAX_ERROR_PX = 4.0
_CELL_PX = 3.0  # several points on one spot are one
_CELLS, _ANGLES = 4, 8  # a descriptor: histograms of eight directions in 4 × 4 cells
# The descriptor of the mirrored image: cells in reverse order across the point's direction, angles negated.
_MIRRORED = (
    np.arange(_CELLS * _CELLS * _ANGLES)
    .reshape(_CELLS, _CELLS, _ANGLES)[::-1, :, (-np.arange(_ANGLES)) % _ANGLES]
    .ravel()
)


@dataclass(frozen=True, eq=False)
class ImagePoints:
    """The SIFT points of an image: positions (n, 2), descriptors (n, 128) as OpenCV rounds them, width."""

    xy: np.ndarray
    descriptors: np.ndarray
    width: int

    def mirrored(self) -> ImagePoints:
        """Return the points of the mirror image, without computing them again."""
        xy = np.column_stack([self.width - 1 - self.xy[:, 0], self.xy[:, 1]]).astype(np.float32)
        return ImagePoints(xy, self.descriptors[:, _MIRRORED], self.width)


def find_points(rgb: np.ndarray) -> ImagePoints:
    """Return the points of an image, uint8 RGB, reduced or enlarged to 320 pixels along its longer side."""
    scale = _LONG_SIDE_PX / max(rgb.shape[:2])
    small = resize(rgb, *(max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0])))
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT.create(_N_POINTS).detectAndCompute(grey, None)
    if not points:
        descriptors = np.empty((0, len(_MIRRORED)))
    xy = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    return ImagePoints(xy, np.asarray(descriptors, np.uint8), grey.shape[1])


def count_inliers(left: ImagePoints, right: ImagePoints) -> tuple[int, bool]:
    """Return how many points of two images fit one similarity transform, and whether one is mirrored."""
    upright, mirrored = (_count(left, each) for each in (right, right.mirrored()))
    return max(upright, mirrored), mirrored > upright


def _count(left: ImagePoints, right: ImagePoints) -> int:
    i, j = _match(left.descriptors, right.descriptors)
    if len(i) < MIN_INLIERS:
        return 0
    a, b = left.xy[i], right.xy[j]
    _, inside = cv2.estimateAffinePartial2D(a, b, method=cv2.RANSAC, ransacReprojThreshold=_MAX_ERROR_PX)
    if inside is None:
        return 0
    fits = inside.ravel().astype(bool)
    return min(len(np.unique(np.floor(xy[fits] / _CELL_PX), axis=0)) for xy in (a, b))


def _match(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of matching descriptors: the nearest is clearly nearer than the second nearest."""
    if not len(left) or len(right) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    squares = 2 - 2 * _root(left) @ _root(right).T
    nearest, second = np.partition(squares, 1, axis=1)[:, :2].T
    i = np.flatnonzero(nearest < _RATIO**2 * second)
    return i, squares[i].argmin(1)


def _root(descriptors: np.ndarray) -> np.ndarray:
    """Return the square roots of descriptors divided by their sums: unit vectors."""
    values = descriptors.astype(np.float32)
    return np.asarray(np.sqrt(values / np.maximum(values.sum(1, keepdims=True), 1)))
