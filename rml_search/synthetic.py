"""Synthetic breast-ultrasound scans with their masks, for demonstrations and tests.

A scan is drawn as a scanner forms it, roughly: tissue reflects so and so much (decibels), sound is attenuated on
its way down, each resolution cell adds up many scatterers with random phases, which makes Rayleigh-distributed
speckle (Wagner et al., "Statistics of speckle in ultrasound B-scans", IEEE Trans. Sonics Ultrason. 1983), and the
amplitude is compressed by a logarithm. Lesions are hypoechoic with an acoustic shadow or enhancement behind them.
What is dark besides (fat lobules, shadows of ligaments, muscle, the space behind a rib) keeps a threshold from
finding them. No image of a person went into this, and nothing measured on it says anything about people.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from rml_search.dataset import SPLITS, split_folders
from rml_search.images import Mask, Pixels
from rml_search.interruption import raise_if_interrupted
from rml_search.new_folder import new_folder

Field = npt.NDArray[np.float64]  #: (H,W)

_SUPERSAMPLING = 2  #: scans are drawn this much larger and averaged, which gives masks and speckle fair edges
_DYNAMIC_RANGE = 52.0  #: dB from black to white
_WHITE = 7.0  #: dB
_NUM_LOOKS = 3  #: averaged for each scan (spatial compounding), which softens the speckle
_SHARE_WITHOUT_LESION = 0.15
_SHARE_MALIGNANT = 0.4  #: of the lesions: irregular, upright, shadowing; the others smooth, flat, enhancing


@dataclass(frozen=True)
class _Grid:
    """Coordinates of all pixels: lateral ``x`` and depth ``y`` in [0, 1], each (H,W)."""

    x: Field
    y: Field

    @property
    def size(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class _Lesion:
    """An irregular ellipse: ``radius`` (H,W) is 1 on its border and less inside."""

    radius: Field
    centre: tuple[float, float]
    half_width: float
    is_malignant: bool


def write_synthetic_data(out: Path, *, num_train: int, num_test: int, size: int, seed: int) -> None:
    """Writes ``out/{train,test}/{inputs,targets}/scan_NNNN.png``.

    Args:
        out: a folder that is empty or not there yet; it is whole or absent at any time.
        num_train, num_test: numbers of scans; about one in seven has no lesion and a black mask.
        size: width and height in pixels, at least 32. Scans are 8-bit grey, masks 0 or 255.
        seed: the same seed gives the same bytes (with the same libraries); a scan does not depend on how many others
            are written.

    Raises:
        WriteError: a folder that holds files or cannot be written.
    """
    with new_folder(out) as folder:
        for split_number, (split, count) in enumerate(zip(SPLITS, (num_train, num_test), strict=True)):
            inputs, targets = split_folders(folder, split)
            inputs.mkdir(parents=True)
            targets.mkdir()
            for number in range(count):
                raise_if_interrupted()
                scan, mask = draw_scan(size, np.random.default_rng([seed, split_number, number]))
                Image.fromarray(scan).save(inputs / f"scan_{number:04}.png")
                Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(targets / f"scan_{number:04}.png")


def draw_scan(size: int, rng: np.random.Generator) -> tuple[Pixels, Mask]:
    """Draws one scan (size,size) of uint8 and the mask of its lesion, all False in a scan without one."""
    pixels = size * _SUPERSAMPLING
    y, x = np.mgrid[0:pixels, 0:pixels] / (pixels - 1)
    grid = _Grid(x, y)
    echo = _tissue(grid, rng)
    lesion = None
    if rng.random() >= _SHARE_WITHOUT_LESION:
        lesion = _draw_lesion(grid, rng)
        echo = _with_lesion(echo, lesion, grid, rng)
    echo += _transmission(grid, rng)
    scan = _downsample(_compress(_speckle(echo, rng)), size)
    inside = np.zeros_like(x) if lesion is None else (lesion.radius < 1).astype(np.float64)
    return np.clip(scan, 0, 255).round().astype(np.uint8), _downsample(inside, size) > 0.5


def _tissue(grid: _Grid, rng: np.random.Generator) -> Field:
    """Returns the echogenicity in dB: skin, fat with lobules, glandular tissue, muscle, and sometimes a rib."""
    fat_ends = rng.uniform(0.16, 0.32) + _wavy(grid, rng, 0.035)
    gland_ends = rng.uniform(0.62, 0.8) + _wavy(grid, rng, 0.04)
    fat = -18.0 + 1.5 * _texture(grid, rng, 0.06) + 10.0 * _strands(grid, rng, 0.3, 0.09)
    gland = rng.uniform(-13, -9) + 3.0 * _texture(grid, rng, 0.09, 0.035) + 9.0 * _strands(grid, rng, 0.16, 0.035)
    muscle = -20.0 + 2.0 * _texture(grid, rng, 0.1, 0.05) + 13.0 * _strands(grid, rng, 0.35, 0.03)
    echo = _blend(_blend(fat, gland, grid.y - fat_ends, 0.012), muscle, grid.y - gland_ends, 0.01)
    for boundary, strength in ((fat_ends, 7.0), (gland_ends, 11.0)):
        fascia = np.exp(-(((grid.y - boundary) / 0.007) ** 2))
        echo += strength * fascia * np.clip(0.5 + 0.5 * _texture(grid, rng, 0.12), 0, 1)
    for _ in range(rng.integers(3, 7)):
        echo = _with_fat_lobule(echo, fat_ends, gland_ends, grid, rng)
    if rng.random() < 0.35:
        echo = _with_rib(echo, gland_ends, grid, rng)
    skin = 0.03 + _wavy(grid, rng, 0.003)
    return _blend(3.0 + 2.0 * _texture(grid, rng, 0.05), echo, grid.y - skin, 0.006)


def _with_fat_lobule(echo: Field, fat_ends: Field, gland_ends: Field, grid: _Grid, rng: np.random.Generator) -> Field:
    """Adds a flat, moderately dark oval in a bright capsule: what is most easily taken for a lesion."""
    centre = (rng.uniform(0, 1), rng.uniform(float(fat_ends.min()) * 0.5, float(gland_ends.max())))
    half_width = rng.uniform(0.06, 0.16)
    radius = _ellipse(grid, centre, (half_width, half_width * rng.uniform(0.25, 0.45)), rng.uniform(-0.25, 0.25))
    capsule = 5.0 * np.exp(-(((radius - 1) / 0.12) ** 2))
    return _blend(rng.uniform(-21, -17) + 1.5 * _texture(grid, rng, 0.04), echo, radius - 1, 0.08) + capsule


def _with_rib(echo: Field, gland_ends: Field, grid: _Grid, rng: np.random.Generator) -> Field:
    """Adds a bright arc near the bottom with nothing but shadow behind it."""
    centre_x, half_width = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.16)
    top = float(gland_ends.max()) + rng.uniform(0.06, 0.12) + 1.5 * (grid.x - centre_x) ** 2
    across = _sigmoid((half_width - np.abs(grid.x - centre_x)) / 0.02)
    surface = 20.0 * np.exp(-(((grid.y - top) / 0.012) ** 2))
    return echo + across * (surface - 20.0 * _sigmoid((grid.y - top - 0.015) / 0.008))


def _draw_lesion(grid: _Grid, rng: np.random.Generator) -> _Lesion:
    is_malignant = rng.random() < _SHARE_MALIGNANT
    half_width = rng.uniform(0.09, 0.2)
    aspect = rng.uniform(0.8, 1.25) if is_malignant else rng.uniform(0.5, 0.75)
    half_height = min(half_width * aspect, 0.17)
    centre = (rng.uniform(0.22, 0.78), rng.uniform(0.34, 0.6))
    radius = _ellipse(grid, centre, (half_width, half_height), rng.uniform(-0.25, 0.25))
    angle = np.arctan2((grid.y - centre[1]) / half_height, (grid.x - centre[0]) / half_width)
    lobes = (2, 3, 4, 5, 7, 9, 11) if is_malignant else (2, 3, 4)
    strength = 0.13 if is_malignant else 0.07
    outline = sum(
        strength / np.sqrt(lobe) * rng.normal() * np.cos(lobe * angle + rng.uniform(0, 2 * np.pi)) for lobe in lobes
    )
    return _Lesion(radius / np.clip(1 + outline, 0.6, 1.4), centre, half_width, is_malignant)


def _with_lesion(echo: Field, lesion: _Lesion, grid: _Grid, rng: np.random.Generator) -> Field:
    """Darkens the inside, brightens the border, and darkens or brightens what lies behind."""
    inside = rng.uniform(-34, -25) + 2.5 * _texture(grid, rng, 0.05)
    blur = 0.09 if lesion.is_malignant else 0.035
    echo = _blend(inside, echo, lesion.radius - 1, blur)
    halo_width = 0.22 if lesion.is_malignant else 0.08
    echo = echo + rng.uniform(2, 5) * np.exp(-(((lesion.radius - 1.12) / halo_width) ** 2))
    behind = _sigmoid((grid.y - lesion.centre[1]) / 0.03) * _sigmoid((lesion.radius - 1) / 0.05)
    across = _sigmoid((0.85 * lesion.half_width - np.abs(grid.x - lesion.centre[0])) / 0.025)
    gain = -rng.uniform(9, 16) if lesion.is_malignant else rng.uniform(2, 6)
    return echo + gain * behind * across


def _transmission(grid: _Grid, rng: np.random.Generator) -> Field:
    """Returns what sound loses on its way, in dB: with depth, at the sides, and behind ligaments."""
    loss = -rng.uniform(6, 20) * np.clip(grid.y - 0.4, 0, None) / 0.6
    loss -= 3.0 * np.abs(2 * grid.x - 1) ** 4
    for _ in range(rng.integers(0, 3)):
        centre, width, start = rng.uniform(0, 1), rng.uniform(0.015, 0.06), rng.uniform(0.03, 0.4)
        slant = centre + rng.uniform(-0.08, 0.08) * grid.y
        shadow = np.exp(-(((grid.x - slant) / width) ** 2)) * _sigmoid((grid.y - start) / 0.04)
        loss -= rng.uniform(4, 10) * shadow
    return loss


def _speckle(echo: Field, rng: np.random.Generator) -> Field:
    """Returns the amplitude of the echo, averaged over independent looks as a compounding scanner does.

    In each look scatterers with random phases are summed up over the resolution cell, which is wider across than
    along the beam and widens with depth: two widths are computed and blended.
    """
    size = len(echo)
    reflected = 10 ** (echo / 20)
    depth = np.linspace(0, 1, size)[:, np.newaxis]
    looks = []
    for _ in range(_NUM_LOOKS):
        phasors = rng.normal(size=(2, size, size)) * reflected
        near, far = (_focus(phasors, axial=0.0035 * size, lateral=width * size) for width in (0.005, 0.01))
        looks.append(np.hypot(*(near * (1 - depth) + far * depth)))
    return np.asarray(np.mean(looks, axis=0))


def _focus(phasors: Field, axial: float, lateral: float) -> Field:
    """Blurs the real and imaginary parts (2,H,W) by the resolution cell, keeping the power that 0 dB has."""
    blurred = np.stack([cv2.GaussianBlur(part, (0, 0), sigmaX=lateral, sigmaY=axial) for part in phasors])
    return np.asarray(blurred * np.sqrt(2 * np.pi * axial * lateral), dtype=np.float64)


def _compress(amplitude: Field) -> Field:
    """Maps decibels to grey levels: the top of the dynamic range to 255, its bottom to 0."""
    decibels = 20 * np.log10(amplitude + 1e-6)
    return 255 * (1 + (decibels - _WHITE) / _DYNAMIC_RANGE)


def _downsample(values: Field, size: int) -> Field:
    return np.asarray(cv2.resize(np.clip(values, 0, 255), (size, size), interpolation=cv2.INTER_AREA))


def _ellipse(grid: _Grid, centre: tuple[float, float], half_axes: tuple[float, float], tilt: float) -> Field:
    """Returns the distance from the centre in units of the half axes: 1 on the border. ``tilt`` is in radians."""
    x, y = grid.x - centre[0], grid.y - centre[1]
    along = x * np.cos(tilt) + y * np.sin(tilt)
    across = y * np.cos(tilt) - x * np.sin(tilt)
    return np.asarray(np.hypot(along / half_axes[0], across / half_axes[1]))


def _wavy(grid: _Grid, rng: np.random.Generator, amplitude: float) -> Field:
    """Returns a smooth curve over ``x`` of about that amplitude."""
    waves = (rng.normal() / wave * np.sin(2 * np.pi * (0.6 * wave * grid.x + rng.uniform())) for wave in range(1, 5))
    return np.asarray(amplitude * sum(waves))


def _texture(grid: _Grid, rng: np.random.Generator, across: float, along: float | None = None) -> Field:
    """Returns a smooth random field of mean 0 and deviation 1 whose spots are ``across`` wide and ``along`` deep."""
    columns, rows = (max(4, round(1 / grain)) for grain in (across, along or across))
    spots = cv2.resize(rng.normal(size=(rows, columns)), (grid.size, grid.size), interpolation=cv2.INTER_CUBIC)
    return np.asarray((spots - spots.mean()) / spots.std())


def _strands(grid: _Grid, rng: np.random.Generator, across: float, along: float) -> Field:
    """Returns thin bright lines in [0, 1] that meander sideways: fibres and ligaments, broken here and there."""
    lines = np.exp(-((_texture(grid, rng, across, along) / 0.16) ** 2))
    return np.asarray(lines * _sigmoid(2.5 * _texture(grid, rng, across, along * 2)))


def _blend(before: Field | float, after: Field | float, distance: Field, softness: float) -> Field:
    """Goes from ``before`` (negative distance) to ``after``."""
    weight = _sigmoid(distance / softness)
    return np.asarray((1 - weight) * before + weight * after)


def _sigmoid(values: Field) -> Field:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -60, 60))))
