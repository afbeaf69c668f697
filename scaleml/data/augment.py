"""Augmentations of images: random crops and flips, of many rows at once, each a function of its row's seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from scaleml.arrays import Array
from scaleml.checks import check_integer, check_number, check_option
from scaleml.data.row_seeds import drawn, integers

__all__ = ["RandomCrop", "RandomFlip"]

Channels = Literal["first", "last"]


@final
@dataclass(frozen=True)
class RandomCrop:
    """Shift each image at random: pad it on all sides, and cut its own size out of that somewhere.

    Parameters
    ----------
    padding : int
        Pixels on each side; an image is shifted by at most so many.
    fill : float
        What is padded with.
    channels : {"first", "last"}
        Whether rows are (channels, height, width), or (height, width), or else (height, width, channels).
    field : str or None
        Which of several inputs holds the images.

    Examples
    --------
    >>> image = np.arange(1, 5).reshape(1, 2, 2)
    >>> RandomCrop(1)(image, np.array([5], np.uint64)).tolist()
    [[[2, 0], [4, 0]]]

    Notes
    -----
    As in He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2, with 4 pixels on CIFAR-10.
    """

    padding: int = 4
    fill: float = 0.0
    channels: Channels = "first"
    field: str | None = None

    def __post_init__(self) -> None:
        check_integer("padding", self.padding, 1, rule="a positive integer, in pixels")
        check_number("fill", self.fill)
        check_option("channels", self.channels, ("first", "last"))

    def __call__(self, x: Array, seeds: Array) -> Array:
        """Return shifted images; see `scaleml.models.augmentation.Augmentation`."""
        images = _images(x, self.field, self.channels, self)
        height, width = _axes(images, self.channels)
        sides = [(self.padding, self.padding) if axis in (height, width) else (0, 0) for axis in range(images.ndim)]
        padded = np.pad(images, sides, constant_values=np.asarray(self.fill).astype(images.dtype))
        size = images.shape[height], images.shape[width]
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(height, width))
        rows, down, across = (np.arange(len(x)), *(integers(seeds, draw, 2 * self.padding + 1) for draw in (0, 1)))
        index: list[Array | slice] = [slice(None)] * images.ndim
        index[0], index[height], index[width] = rows, down, across
        found = windows[tuple(index)]  # (n, channels, height, width) wherever the channels were
        return _with_images(x, self.field, np.moveaxis(found, 1, -1) if self.channels == "last" else found)


@final
@dataclass(frozen=True)
class RandomFlip:
    """Mirror some images, left to right.

    Parameters
    ----------
    probability : float
        Of an image to be mirrored.
    channels : {"first", "last"}
        See `RandomCrop`.
    field : str or None
        Which of several inputs holds the images.

    Examples
    --------
    >>> images = np.tile(np.arange(3), (4, 1, 1))
    >>> RandomFlip()(images, np.arange(4, dtype=np.uint64))[:, 0].tolist()
    [[0, 1, 2], [0, 1, 2], [0, 1, 2], [2, 1, 0]]
    """

    probability: float = 0.5
    channels: Channels = "first"
    field: str | None = None

    def __post_init__(self) -> None:
        check_number("probability", self.probability, 0, 1)
        check_option("channels", self.channels, ("first", "last"))

    def __call__(self, x: Array, seeds: Array) -> Array:
        """Return images, some mirrored; see `scaleml.models.augmentation.Augmentation`."""
        images = _images(x, self.field, self.channels, self)
        _, width = _axes(images, self.channels)
        chosen = np.flatnonzero((drawn(seeds, 0) >> np.uint64(11)) * 2.0**-53 < self.probability)
        found = np.array(images)
        found[chosen] = np.flip(images[chosen], axis=width)
        return _with_images(x, self.field, found)


def _axes(images: Array, channels: Channels) -> tuple[int, int]:
    """Return the axes of height and width."""
    last = images.ndim - (2 if channels == "last" else 1)
    return last - 1, last


def _images(x: Array, field: str | None, channels: Channels, what: object) -> Array:
    """Return the images among the inputs.

    Raises
    ------
    ValueError
        If there are none.
    """
    names = x.dtype.names
    if (names is None) != (field is None) or (names is not None and field not in names):
        listed = "one input" if names is None else f"the inputs {', '.join(map(repr, names))}"
        raise ValueError(
            f"{what!r}: X has {listed}; name the one with the images by field=, or leave it out where there is one"
        )
    images: Array = x if field is None else x[field]
    if images.ndim not in ((4,) if channels == "last" else (3, 4)):
        wanted = "(height, width, channels)" if channels == "last" else "(channels, height, width) or (height, width)"
        raise ValueError(f"{what!r}: X has rows of shape {images.shape[1:]}, but images are {wanted}")
    return images


def _with_images(x: Array, field: str | None, images: Array) -> Array:
    if field is None:
        return images
    found = np.array(x)
    found[field] = images
    return found
