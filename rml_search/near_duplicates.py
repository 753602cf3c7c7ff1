"""Finding images that show the same picture: crops, rescalings and annotated copies of one frame.

Such copies must not lie on both sides of a split, or the test images flatter. A perceptual hash misses
crops and confuses ultrasound frames, which all look alike from afar; their speckle, however, is a
fingerprint. So candidates come from SIFT descriptors that are nearest neighbours across images (Lowe,
"Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004), and a candidate counts once an
affine map found by RANSAC brings the speckle of one image onto that of the other. The second step is
what tells copies from frames that share no more than a scanner's burnt-in text.

Mirrored copies are not found. Everything is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from rml_search.images import Pixels, read_image, to_grey

Floats = npt.NDArray[np.float32]

_LONG_SIDE = 256  #: pixels; the size at which images are compared: text and calipers lose weight, speckle stays
_NUM_KEYPOINTS = 150  #: at most, of each image
_NUM_NEIGHBOURS = 5  #: of each descriptor, its own image's among them
_MAX_DESCRIPTOR_DISTANCE = 0.45  #: between RootSIFT descriptors, of [0, sqrt(2)]
_MIN_VOTES = 6  #: descriptors of two images that are neighbours, for the pair to be looked at
_MIN_INLIERS = 6  #: keypoints that the affine map must explain; three define one
_MIN_OVERLAP = 0.2  #: of either image's area
_MIN_SPECKLE_CORRELATION = 0.3  #: BUSI: copies 0.83 and more, neighbouring frames less, others below 0.2
_SEED = 0


@dataclass(frozen=True)
class _Fingerprint:
    """What is kept of an image: band-passed pixels (H,W), keypoints (K,2) as x and y, descriptors (K,128)."""

    speckle: Floats
    points: Floats
    descriptors: Floats


def group_near_duplicates(images: Iterable[Path | Pixels]) -> list[int]:
    """Labels every image with the group of images that show the same picture.

    Args:
        images: files, or arrays (H,W) or (H,W,3) of uint8; they are read one after the other, and only a
            thumbnail of each is kept.

    Returns:
        one label for each image, in order. Groups are the connected components of "is a near-duplicate of",
        numbered from 0 by their first image; an image without a copy is alone in its group.

    Raises:
        DataSetError: a file is no image that can be read.
    """
    thumbnails = [thumbnail(image) for image in images]
    prints = [_fingerprint(pixels) for pixels in thumbnails]
    edges = [*_identical_pairs(thumbnails)]
    edges += [(a, b) for a, b in _candidate_pairs(prints) if _show_the_same(prints[a], prints[b])]
    return _connected_components(len(thumbnails), edges)


def thumbnail(image: Path | Pixels) -> Pixels:
    """Returns a grey copy (h,w) of an image, at most 256 pixels long, as the comparison uses it."""
    pixels = to_grey(read_image(image, str(image))) if isinstance(image, Path) else image
    if pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    height, width = pixels.shape
    scale = _LONG_SIDE / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _fingerprint(grey: Pixels) -> _Fingerprint:
    keypoints, descriptors = cv2.SIFT.create(nfeatures=_NUM_KEYPOINTS).detectAndCompute(grey, None)
    if not keypoints:
        descriptors = np.zeros((0, 128), np.float32)
    # SIFT returns more than it was asked for where several keypoints are equally strong
    points = np.array([keypoint.pt for keypoint in keypoints[:_NUM_KEYPOINTS]], np.float32).reshape(-1, 2)
    return _Fingerprint(_speckle(grey), points, _root_sift(np.asarray(descriptors[:_NUM_KEYPOINTS], np.float32)))


def _root_sift(descriptors: Floats) -> Floats:
    """Compares by the Hellinger kernel (Arandjelovic and Zisserman, CVPR 2012)."""
    sums = descriptors.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(descriptors / np.maximum(sums, np.finfo(np.float32).tiny)), np.float32)


def _speckle(grey: Pixels) -> Floats:
    """Keeps the fine texture, at the same strength everywhere, whatever gain or contrast the frame had."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    texture = smooth - cv2.GaussianBlur(smooth, (0, 0), 6.0)
    strength = np.sqrt(cv2.GaussianBlur(texture * texture, (0, 0), 6.0))
    return np.asarray(texture / (strength + 2.0), dtype=np.float32)


def _identical_pairs(thumbnails: list[Pixels]) -> Iterator[tuple[int, int]]:
    """Pairs equal images, even those that have no keypoint at all."""
    first_with: dict[tuple[tuple[int, ...], bytes], int] = {}
    for index, pixels in enumerate(thumbnails):
        first = first_with.setdefault((pixels.shape, pixels.tobytes()), index)
        if first != index:
            yield first, index


def _candidate_pairs(prints: list[_Fingerprint]) -> list[tuple[int, int]]:
    """Pairs images that own enough of each other's nearest descriptors."""
    descriptors = np.concatenate([print_.descriptors for print_ in prints] or [np.zeros((0, 128), np.float32)])
    if len(descriptors) <= _NUM_NEIGHBOURS:
        return []
    owner = np.repeat(np.arange(len(prints)), [len(print_.descriptors) for print_ in prints])
    cv2.setRNGSeed(_SEED)  # FLANN's trees split at random
    trees = {"algorithm": 1, "trees": 4}
    matcher = cv2.FlannBasedMatcher(trees, {"checks": 32})  # type: ignore[arg-type]
    neighbours = matcher.knnMatch(descriptors, descriptors, k=_NUM_NEIGHBOURS)
    pairs = np.array(
        [
            (match.queryIdx, match.trainIdx)
            for matches in neighbours
            for match in matches
            if match.distance < _MAX_DESCRIPTOR_DISTANCE
        ]
    ).reshape(-1, 2)
    return _pairs_with_votes(owner[pairs])


def _pairs_with_votes(owners: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    across = np.sort(owners[owners[:, 0] != owners[:, 1]], axis=1)
    pairs, votes = np.unique(across, axis=0, return_counts=True)
    return [(int(a), int(b)) for a, b in pairs[votes >= _MIN_VOTES]]


def _show_the_same(one: _Fingerprint, other: _Fingerprint) -> bool:
    """Whether an affine map brings the speckle of ``other`` onto that of ``one``."""
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(other.descriptors, one.descriptors)
    if len(matches) < _MIN_INLIERS:
        return False
    source = other.points[[match.queryIdx for match in matches]]
    target = one.points[[match.trainIdx for match in matches]]
    affine, inliers = cv2.estimateAffine2D(source, target, ransacReprojThreshold=3.0)
    if affine is None or int(inliers.sum()) < _MIN_INLIERS:
        return False
    height, width = one.speckle.shape
    moved = np.asarray(cv2.warpAffine(other.speckle, affine, (width, height)), np.float32)
    covered = cv2.warpAffine(np.ones_like(other.speckle), affine, (width, height), flags=cv2.INTER_NEAREST) > 0
    scale = abs(float(np.linalg.det(affine[:, :2])))
    overlap = covered.sum() * min(1 / one.speckle.size, 1 / (other.speckle.size * max(scale, 1e-6)))
    return bool(overlap >= _MIN_OVERLAP) and _correlation(one.speckle[covered], moved[covered]) >= (
        _MIN_SPECKLE_CORRELATION
    )


def _correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; 0 where one of the two is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


def _connected_components(num_nodes: int, edges: list[tuple[int, int]]) -> list[int]:
    """Labels nodes by component, numbered from 0 by their first node (union-find)."""
    parent = list(range(num_nodes))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in edges:
        first, second = sorted((root(a), root(b)))
        parent[second] = first
    number_of: dict[int, int] = {}
    return [number_of.setdefault(root(node), len(number_of)) for node in range(num_nodes)]
