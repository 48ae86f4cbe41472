"""The input contract: a picture comes in, what the network sees (RGB bytes) and the tensor it is fed go out.

Everything between the bytes that the network sees and its tensor acts on one pixel at a time, and a byte has 256
values: the arithmetic is therefore done once per channel, in float64, into a table, and encoding a batch is looking
numbers up. Each number of the tensor is the correctly rounded value of the formula, in every dtype, quantised or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxviz.errors import ContractError, InputError, near_misses
from onnxviz.inputs.fields import CONVERSIONS, invalid, one_of, per_channel

__all__ = ["FITS", "INTERPOLATIONS", "Preprocess", "luma"]

FITS = ("crop", "stretch", "pad")
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
CHANNEL_COUNT = {"RGB": 3, "BGR": 3, "GRAY": 1}
LAYOUTS = ("NCHW", "NHWC")
FLOAT_DTYPES = ("float32", "float16", "float64", "bfloat16")
INTEGER_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the tensor that a network is fed: ``(pixel * scale - mean) / std`` per channel.

    ``pixel`` is 0 to 255. Where ``quantization`` is given, the real number above is stored as
    ``round(real / quantization scale) + zero point`` (half to even, clipped to the dtype); where an integer dtype has
    none, the real number itself is rounded and clipped.

    Raises
    ------
    ContractError
        When the parts contradict each other, or the dtype cannot hold the numbers.
    """

    size: tuple[int, int]
    """Height and width in pixels of what the network sees."""
    fit: str = "crop"
    """``"crop"``: the centred rectangle of the tensor's aspect, ``crop_fraction`` of the largest that fits, is resized;
    ``"stretch"``: the whole picture is, whatever its aspect; ``"pad"``: the whole picture is, its aspect kept, and
    what remains is filled with ``background``."""
    crop_fraction: float = 0.875
    """Side of the centre crop as a fraction of the largest possible one (the short side, for a square)."""
    interpolation: str = "bilinear"
    """A filter of Pillow by its lower-case name; all but ``"nearest"`` average over the area when they reduce."""
    channels: str = "RGB"
    """Order of the tensor's channels: ``"RGB"``, ``"BGR"`` or ``"GRAY"`` (ITU-R 601 luma)."""
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Mean and standard deviation after scaling, one for each channel in the order of ``channels``."""
    layout: str = "NCHW"
    dtype: str = "float32"
    quantization: tuple[float, int] | None = None
    """Scale and zero point of a quantised input."""
    background: tuple[int, int, int] = (255, 255, 255)
    """RGB colour behind transparent pixels, and of the padding."""
    source: str = "argument"
    """Who said so: ``"argument"``, ``"sidecar"``, ``"metadata"``, ``"preset"``, ``"graph"`` or ``"guess"``."""
    name: str = ""
    """The preset's name, or another short name."""
    why: str = ""
    """The choice explained, one plain sentence."""
    guessed: bool = False
    """True where nothing stated how the input is prepared."""

    def __post_init__(self) -> None:
        """Bring every field to its plain type, and refuse what contradicts itself."""
        for name, convert in CONVERSIONS.items():
            object.__setattr__(self, name, convert(name, getattr(self, name)))
        one_of("channels", self.channels, CHANNEL_COUNT)
        for name in ("mean", "std"):
            object.__setattr__(self, name, per_channel(name, getattr(self, name), self.channels))
        one_of("fit", self.fit, FITS)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("layout", self.layout, LAYOUTS)
        one_of("dtype", self.dtype, FLOAT_DTYPES + INTEGER_DTYPES)
        if not 0 < self.crop_fraction <= 1:
            raise invalid("crop_fraction", self.crop_fraction, "a number above 0 and at most 1")
        if self.scale <= 0:
            raise invalid("scale", self.scale, "a number above 0")
        if min(self.std) <= 0:
            raise invalid("std", self.std, "numbers above 0")
        self._check_that_the_dtype_holds_the_numbers()

    def _check_that_the_dtype_holds_the_numbers(self) -> None:
        if self.quantization is not None and self.dtype not in INTEGER_DTYPES:
            raise ContractError(
                "only an integer input can be quantised",
                where="quantization",
                got=f"dtype {self.dtype}",
                allowed=", ".join(INTEGER_DTYPES),
                next_step="Leave quantization out",
            )
        numbers = self._numbers
        if self.dtype in INTEGER_DTYPES:
            limits = np.iinfo(self.dtype)
            beyond = np.mean((numbers < limits.min - 0.5) | (numbers > limits.max + 0.5))
            # A quantised range is fitted to data and may cut off a little; half of all pixel values is a contradiction.
            if beyond > (0.5 if self.quantization else 0.0) or np.ptp(np.rint(numbers), axis=1).min() < 16:
                raise ContractError(
                    f"the numbers {numbers.min():.4g} to {numbers.max():.4g} do not fit the dtype",
                    where=f"preprocess {self.name!r}" if self.name else "preprocess",
                    got=f"{self.dtype} {'with' if self.quantization else 'without'} quantization",
                    allowed=f"a useful part of {limits.min} to {limits.max}",
                    next_step="State quantization = {scale, zero_point}, or another preset such as 'raw'",
                )
        elif self.dtype in ("float16", "float32") and not np.abs(numbers).max() <= np.finfo(self.dtype).max:
            largest = float(np.finfo(self.dtype).max)
            raise invalid("scale", self.scale, f"numbers that {self.dtype} can hold (up to {largest:.6g})")

    # --- pictures to views ---------------------------------------------------------------------------------------

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Part of a picture that the network sees: left, top, right, bottom in (fractions of) picture pixels.

        ``fit="crop"`` agrees with resizing the short side to ``size / crop_fraction`` and then cutting ``size`` out of
        the centre, as torchvision and timm do, but for their rounding of both to whole pixels.
        """
        if self.fit != "crop":
            return 0.0, 0.0, float(width), float(height)
        rows, columns = self.size
        unit = self.crop_fraction * min(width / columns, height / rows)
        half_width, half_height = min(unit * columns, width) / 2, min(unit * rows, height) / 2
        left, top = width / 2 - half_width, height / 2 - half_height
        return max(left, 0.0), max(top, 0.0), min(width / 2 + half_width, width), min(height / 2 + half_height, height)

    def view(self, image: Image.Image) -> NDArray[np.uint8]:
        """Cut and resize a picture to what the network sees.

        Parameters
        ----------
        image : PIL.Image.Image
            An upright RGB picture; other modes are converted by Pillow (files are better opened by ``load_images``,
            which treats alpha, 16 bits and orientation as they should be).

        Returns
        -------
        (height, width, 3) uint8
            RGB.
        """
        if image.mode != "RGB":
            image = image.convert("RGB")
        rows, columns = self.size
        resample = INTERPOLATIONS[self.interpolation]
        if self.fit == "pad":
            reduction = min(columns / image.width, rows / image.height)
            inner = max(1, round(image.width * reduction)), max(1, round(image.height * reduction))
            canvas = Image.new("RGB", (columns, rows), self.background)
            canvas.paste(image.resize(inner, resample), ((columns - inner[0]) // 2, (rows - inner[1]) // 2))
            return np.array(canvas)
        box = self.crop_box(image.width, image.height)
        return np.asarray(image.resize((columns, rows), resample, box=box)).copy()

    # --- views to tensors and back -------------------------------------------------------------------------------

    @cached_property
    def _numbers(self) -> NDArray[np.float64]:
        """(channels, 256) the number in tensor units, not yet rounded, for each byte."""
        return np.asarray(self._steps + (self.quantization[1] if self.quantization else 0))

    @cached_property
    def _steps(self) -> NDArray[np.float64]:
        """(channels, 256) the same, counted from the zero point."""
        return self._count_steps(np.arange(256, dtype=np.float64)[np.newaxis, :])

    def _count_steps(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """(channels, ...) from (channels or 1, ...) pixel values: real numbers, or quantisation steps."""
        axes = (-1,) + (1,) * (pixels.ndim - 1)
        real = (pixels * self.scale - np.reshape(self.mean, axes)) / np.reshape(self.std, axes)
        return np.asarray(real if self.quantization is None else real / self.quantization[0])

    @cached_property
    def _table(self) -> NDArray[Any]:
        """(channels, 256) the tensor's number for each byte, in the tensor's dtype."""
        dtype = _numpy_dtype(self.dtype)
        if self.dtype not in INTEGER_DTYPES:
            return self._numbers.astype(dtype)
        limits = np.iinfo(dtype)
        # Rounded before the zero point is added, as QuantizeLinear does: an odd zero point would turn the ties around.
        rounded = np.rint(self._steps) + (self.quantization[1] if self.quantization else 0)
        return np.asarray(np.clip(rounded, limits.min, limits.max).astype(dtype))

    def encode(self, views: NDArray[np.uint8]) -> NDArray[Any]:
        """Turn views into the tensor that the network is fed.

        Parameters
        ----------
        views : (n, height, width, 3) uint8
            RGB, as ``view`` returns them.

        Returns
        -------
        (n, channels, height, width) or (n, height, width, channels)
            By ``layout``, in ``dtype``; each number correctly rounded from the formula.

        Raises
        ------
        InputError
            When the array is not of that shape and dtype.
        """
        views = np.asarray(views)
        expected = (*self.size, 3)
        if views.dtype != np.uint8 or views.ndim != 4 or views.shape[1:] != expected:
            raise InputError(
                "these are not views of the network's input",
                where="encode",
                got=f"{views.dtype} {views.shape}",
                allowed=f"uint8 (n, {expected[0]}, {expected[1]}, 3), RGB",
                next_step="Use load_images, or Preprocess.view for each picture",
            )
        table, count = self._table, CHANNEL_COUNT[self.channels]
        channel_first = self.layout == "NCHW"
        shape = (len(views), count, *self.size) if channel_first else (len(views), *self.size, count)
        tensor = np.empty(shape, table.dtype)
        for view, target in zip(views, tensor, strict=True):
            planes = target if channel_first else np.moveaxis(target, -1, 0)
            sources = luma(view)[np.newaxis] if count == 1 else np.moveaxis(view, -1, 0)[:: self._direction]
            for plane, source, entries in zip(planes, sources, table, strict=True):
                if channel_first:
                    # mode="clip" lets numpy write straight into the plane; no index of a byte can be out of range.
                    np.take(entries, source, out=plane, mode="clip")
                else:
                    plane[...] = entries[source]
        return tensor

    def decode(self, tensor: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn a tensor back into views: the inverse of ``encode``, rounded and clipped.

        Parameters
        ----------
        tensor : (n, channels, height, width) or (n, height, width, channels)
            By ``layout``; any height and width.

        Returns
        -------
        (n, height, width, 3) uint8
            RGB; a grey tensor gives three equal channels.
        """
        axis, count = (1 if self.layout == "NCHW" else 3), CHANNEL_COUNT[self.channels]
        tensor = np.asarray(tensor)
        if tensor.ndim != 4 or tensor.shape[axis] != count:
            raise InputError(
                "this is not a tensor of the network's input",
                where="decode",
                got=str(tensor.shape),
                allowed=f"{self.layout} with {count} channel{'s' if count > 1 else ''}",
            )
        real = np.moveaxis(tensor, axis, 0).astype(np.float64)
        if self.quantization is not None:
            real = (real - self.quantization[1]) * self.quantization[0]
        mean, std = (np.reshape(numbers, (-1, 1, 1, 1)) for numbers in (self.mean, self.std))
        pixels = np.clip(np.rint(np.nan_to_num((real * std + mean) / self.scale)), 0, 255).astype(np.uint8)
        rgb = np.repeat(pixels, 3, axis=0) if count == 1 else pixels[:: self._direction]
        return np.ascontiguousarray(np.moveaxis(rgb, 0, -1))

    def encode_color(self, rgb: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        """Bring one colour to tensor units, before it is rounded to the dtype.

        Parameters
        ----------
        rgb : (3,) or (..., 3) float
            Red, green, blue from 0 to 255; need not be whole.

        Returns
        -------
        (channels,) or (..., channels) float64
            In the order of ``channels``; of a quantised input, the quantised number before rounding and clipping.
        """
        colour = np.asarray(rgb, dtype=np.float64)
        if colour.ndim == 0 or colour.shape[-1] != 3:
            raise InputError(
                "a colour has three numbers", where="encode_color", got=str(colour.shape), allowed="(..., 3)"
            )
        if self.channels == "GRAY":
            pixels = (colour @ _LUMA_WEIGHTS)[np.newaxis] / 65536
        else:
            pixels = np.moveaxis(colour, -1, 0)[:: self._direction]
        zero_point = self.quantization[1] if self.quantization else 0
        return np.moveaxis(self._count_steps(pixels), 0, -1) + zero_point

    @property
    def _direction(self) -> int:
        return -1 if self.channels == "BGR" else 1

    @property
    def dataset_mean(self) -> NDArray[np.float64]:
        """(3,) RGB colour, 0 to 255, that the contract maps to 0; mid-grey 127.5 where it subtracts no mean."""
        if not any(self.mean):
            return np.full(3, 127.5)
        colour = np.asarray(self.mean)[:: self._direction] / self.scale
        return np.clip(np.broadcast_to(colour, (3,)), 0.0, 255.0).copy()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one picture's tensor, without the batch."""
        count = CHANNEL_COUNT[self.channels]
        return (count, *self.size) if self.layout == "NCHW" else (*self.size, count)

    # --- plain data ----------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON types; ``from_json`` gives an equal contract back."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            plain[field.name] = list(value) if isinstance(value, tuple) else value
        if self.quantization is not None:
            plain["quantization"] = {"scale": self.quantization[0], "zero_point": self.quantization[1]}
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Preprocess:
        """Read the contract that ``to_json`` wrote; ``size`` must be there, everything else has its default.

        Raises
        ------
        ContractError
            For a field that does not exist, a wrong type, or a contradiction.
        """
        known = [field.name for field in fields(cls)]
        for name in plain:
            if name not in known:
                raise ContractError(
                    "no such field of a preprocessing contract",
                    where=name,
                    allowed=near_misses(name, known),
                    next_step="Correct the name, or remove it",
                )
        if "size" not in plain:
            raise ContractError("the size of the network's input is missing", where="size", allowed="[height, width]")
        return cls(**plain)


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(...) uint8 luma of (..., 3) uint8 RGB, ITU-R 601-2, to the bit what Pillow's mode ``L`` is."""
    return np.asarray((rgb.astype(np.uint32) @ _LUMA_WEIGHTS.astype(np.uint32) + 0x8000) >> 16, dtype=np.uint8)


# .299, .587, .114 in Pillow's 16-bit fixed point.
_LUMA_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.float64)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise ContractError(
            "numpy alone has no bfloat16",
            where="dtype",
            got=name,
            next_step="Install ml_dtypes, or export the model with a float32 input",
        ) from error
    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16
