"""Data, transforms and slicers of the document (section 3 of the contract)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import Self

from rmldnn_contract._section import (
    BelowOne,
    Count,
    FilePathText,
    Fraction,
    NonNegative,
    PathText,
    Positive,
    Section,
    any_case,
)
from rmldnn_contract.names import unknown_name


class Resize(Section):
    """Resizes to (width, height) pixels: bilinear interpolation, nearest-neighbour for masks."""

    resize: tuple[Count, Count]


class CenterCrop(Section):
    """Crops (width, height) pixels around the centre."""

    center_crop: tuple[Count, Count]


class JitterCrop(Section):
    """Crops each side i by c * S_i / 2, c uniform in [0, jitter_crop)."""

    jitter_crop: BelowOne


class RandomHorizontalFlip(Section):
    """Flips left and right with this probability."""

    random_horizontal_flip: Fraction


class RandomVerticalFlip(Section):
    """Flips top and bottom with this probability."""

    random_vertical_flip: Fraction


class RandomZoom(Section):
    """Zooms in by c * S_i / 2 in each direction i, c uniform in [0, random_zoom)."""

    random_zoom: BelowOne


class Rotate(Section):
    """Rotates clockwise by this angle, in degrees."""

    rotate: float


class RandomRotate(Section):
    """Rotates by an angle uniform in [-random_rotate, random_rotate], in degrees."""

    random_rotate: NonNegative


class ConvertColor(Section):
    """Converts colours; the code is an OpenCV name without its prefix, such as ``BGR2RGB``."""

    convert_color: str


class MeanAndDeviation(Section):
    """Mean and standard deviation, one for all channels or one for each.

    Published documents give one without the other: what is absent changes nothing.
    """

    mean: float | tuple[float, ...] = 0.0
    std: Positive | tuple[Positive, ...] = 1.0


class Normalize(Section):
    """x' = (x - mean) / std, on pixels that lie in [0, 1]."""

    normalize: MeanAndDeviation


class Patches(Section):
    """How many square patches are blanked out, and their side in pixels."""

    number: Count
    size: Count


class RandomPatches(Section):
    """Blanks out square patches at random places of the input; as a target transform, keeps only these.

    The network learns to fill in what is missing. Targets stay whole if only ``input_transforms`` has it.
    """

    random_patches: Patches


_TRANSFORMS: dict[str, type[Section]] = {
    next(iter(model.model_fields)): model
    for model in (
        Resize,
        CenterCrop,
        JitterCrop,
        RandomHorizontalFlip,
        RandomVerticalFlip,
        RandomZoom,
        Rotate,
        RandomRotate,
        ConvertColor,
        Normalize,
        RandomPatches,
    )
}
TRANSFORMS: tuple[str, ...] = tuple(_TRANSFORMS)
#: Those that move pixels at random. They belong to training.
RANDOM_GEOMETRY = frozenset(
    {"jitter_crop", "random_horizontal_flip", "random_vertical_flip", "random_zoom", "random_rotate"}
)


def _key_of_transform(value: object) -> str | None:
    if isinstance(value, Section):
        return next(iter(type(value).model_fields))
    return str(next(iter(value))) if isinstance(value, Mapping) and len(value) == 1 else None


def _has_one_known_key(value: Any) -> Any:
    key = _key_of_transform(value)
    if key is None:
        raise ValueError('a transform is an object with one key, such as {"resize": [256, 256]}')
    if key not in _TRANSFORMS:
        raise ValueError(unknown_name("transform", key, _TRANSFORMS))
    return value


Transform: TypeAlias = Annotated[
    Union[  # noqa: UP007 - tagged members stand clearer in a list
        Annotated[Resize, Tag("resize")],
        Annotated[CenterCrop, Tag("center_crop")],
        Annotated[JitterCrop, Tag("jitter_crop")],
        Annotated[RandomHorizontalFlip, Tag("random_horizontal_flip")],
        Annotated[RandomVerticalFlip, Tag("random_vertical_flip")],
        Annotated[RandomZoom, Tag("random_zoom")],
        Annotated[Rotate, Tag("rotate")],
        Annotated[RandomRotate, Tag("random_rotate")],
        Annotated[ConvertColor, Tag("convert_color")],
        Annotated[Normalize, Tag("normalize")],
        Annotated[RandomPatches, Tag("random_patches")],
    ],
    Discriminator(_key_of_transform),
    BeforeValidator(_has_one_known_key),
]

DataType: TypeAlias = Literal["images", "labels", "numpy", "hdf5"]


PrecisionName: TypeAlias = Literal["single", "half"]


class Slicer(Section):
    """How samples are cut out of a large array; each list has one entry per dimension of the array.

    A block of ``sizes`` is cut out every ``strides`` (default: ``sizes``), then padded by ``padding`` on both sides or
    to ``padded_sizes``. A size of 1 drops that dimension. The remainder at the end of a dimension is padded too, or
    dropped with ``discard_remainders``. With ``transpose``, two-dimensional slices are transposed before they enter
    the network. Predictions are written under ``name``, as a path in an HDF5 file.
    """

    sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    name: FilePathText | None = None
    padding: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] | None = None
    padded_sizes: tuple[Count, ...] | None = None
    strides: tuple[Count, ...] | None = None
    discard_remainders: bool = False
    transpose: bool = False

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if self.padding is not None and self.padded_sizes is not None:
            raise ValueError("give padding or padded_sizes, not both")
        for key in ("padding", "padded_sizes", "strides"):
            value = getattr(self, key)
            if value is not None and len(value) != len(self.sizes):
                raise ValueError(f"{key} has {len(value)} entries, sizes has {len(self.sizes)}")
        if self.padded_sizes and any(p < s for p, s in zip(self.padded_sizes, self.sizes, strict=True)):
            raise ValueError("padded_sizes must not be smaller than sizes")
        return self

    @model_validator(mode="after")
    def _dimensions_fit(self) -> Self:
        padded = zip(self.sizes, self.padding or self.padded_sizes or self.sizes, strict=True)
        unpadded = 0 if self.padding else 1
        if any(size == 1 and amount != unpadded for size, amount in padded):
            raise ValueError("a dimension of size 1 is dropped from the slices and takes no padding")
        if self.num_dimensions == 0:
            raise ValueError("sizes are all 1: slices must keep a dimension")
        if self.transpose and self.num_dimensions != 2:
            raise ValueError(f"transpose needs slices of 2 dimensions, these have {self.num_dimensions}")
        return self

    @property
    def num_dimensions(self) -> int:
        """How many dimensions the slices keep."""
        return sum(size > 1 for size in self.sizes)


_DataTypeName = Annotated[DataType, any_case("data type", get_args(DataType))]


class Data(Section):
    """Where the samples are, how they are read, and how they are transformed before they enter the network."""

    type: _DataTypeName | None = None
    input_type: _DataTypeName | None = None
    target_type: _DataTypeName | None = None
    input_path: PathText | None = None
    target_path: PathText | None = None
    test_input_path: PathText | None = None
    test_target_path: PathText | None = None
    test_output_path: PathText | None = None
    batch_size: Count = 64
    test_batch_size: Count = 64
    preload: bool = False
    grayscale: bool = False
    input_grayscale: bool | None = None
    target_grayscale: bool | None = None
    target_is_mask: bool = False
    training_tag: str | None = None
    # The documentation writes testing_tag, RocketML's own documents test_tag.
    test_tag: Annotated[str | None, Field(validation_alias=AliasChoices("test_tag", "testing_tag"))] = None
    transforms: tuple[Transform, ...] | None = None
    input_transforms: tuple[Transform, ...] | None = None
    target_transforms: tuple[Transform, ...] | None = None
    slicers: Annotated[tuple[Slicer, ...], Field(min_length=1)] | None = None
    hdf5_outfile: FilePathText | None = None
    hdf5_precision: Annotated[PrecisionName, any_case("precision", get_args(PrecisionName))] = "single"

    @model_validator(mode="after")
    def _paths_and_types_agree(self) -> Self:
        if self.type is None and self.input_type is None:
            raise ValueError(f"type is missing; it is one of {', '.join(get_args(DataType))}")
        if self.transforms is not None and (self.input_transforms or self.target_transforms):
            raise ValueError("give transforms, or input_transforms and target_transforms, not both")
        if self.target_path is not None and self.input_path is None:
            raise ValueError("target_path is given without input_path")
        if self.test_target_path is not None and self.test_input_path is None:
            raise ValueError("test_target_path is given without test_input_path")
        return self

    @model_validator(mode="after")
    def _slicers_agree(self) -> Self:
        slicers = self.slicers or ()
        if len({len(slicer.sizes) for slicer in slicers}) > 1:
            raise ValueError("the slicers have different numbers of sizes: each needs one for each dimension")
        if len({slicer.num_dimensions for slicer in slicers}) > 1:
            raise ValueError(
                "the slicers give slices of different numbers of dimensions, which one network cannot take"
            )
        names = [slicer.name for slicer in slicers if slicer.name is not None]
        if len(set(names)) < len(names):
            raise ValueError("two slicers have the same name")
        if self.hdf5_outfile is not None and not slicers:
            raise ValueError("hdf5_outfile puts slices together, and there are no slicers: use test_output_path")
        return self

    @property
    def inputs_are(self) -> DataType:
        """What kind of files the inputs are."""
        kind = self.input_type or self.type
        assert kind is not None  # noqa: S101 - the validator above has refused a document without either
        return kind

    @property
    def targets_are(self) -> DataType:
        """What kind of files the targets are."""
        return self.target_type or self.type or self.inputs_are

    @property
    def reads_gray_inputs(self) -> bool:
        """Whether inputs have one channel instead of three."""
        return self.grayscale if self.input_grayscale is None else self.input_grayscale

    @property
    def reads_gray_targets(self) -> bool:
        """Whether targets have one channel instead of three."""
        return self.grayscale if self.target_grayscale is None else self.target_grayscale

    @property
    def transforms_of_inputs(self) -> tuple[Transform, ...]:
        """The transforms of inputs, in the order in which they apply."""
        return self.transforms if self.transforms is not None else self.input_transforms or ()

    @property
    def transforms_of_targets(self) -> tuple[Transform, ...]:
        """The transforms of targets, in the order in which they apply."""
        return self.transforms if self.transforms is not None else self.target_transforms or ()
