"""Pictures of a study as PNG: encoded the same way whatever they were, and the pictures of attention checks.

A browser gets pixels and nothing else: no metadata, no file name, no trace of the format that a picture came in.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from simgan_core.study.plan import SOURCES, Source, StudySettings, images_needed
from simgan_core.study.records import Picture

UInt8 = NDArray[np.uint8]


def encode_png(image: UInt8) -> bytes:
    """PNG of a uint8 image [C, H, W], C = 1 or 3."""
    pixels = image[0] if image.shape[0] == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png", optimize=True)
    return stream.getvalue()


def decode_png(png: bytes) -> UInt8:
    """The uint8 image [C, H, W] in a PNG; C = 1 (grey) or 3."""
    with Image.open(io.BytesIO(png)) as picture:
        array = np.array(picture.convert("L" if picture.mode in ("1", "L", "I", "I;16") else "RGB"))
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def with_attention_checks(
    settings: StudySettings, pictures: Mapping[Source, Sequence[Picture]]
) -> dict[Source, Sequence[Picture]]:
    """The pictures, and those of the attention checks that the settings ask for, in the size of the others."""
    stock = dict(pictures)
    needed = images_needed(settings)
    first = next((found[0] for found in pictures.values() if found), None)
    if first is None:
        return stock  # the plan will say what is missing
    shape = decode_png(first.png).shape
    for source, label in zip(SOURCES[3:], settings.labels, strict=True):
        if needed[source]:
            stock[source] = [Picture(f"{source}.png", encode_png(attention_picture(label, shape, settings.scale)))]
    return stock


def attention_picture(label: str, shape: tuple[int, ...], scale: int) -> UInt8:
    """A grey picture of the word on the button to choose, in the size [C, H, W] at which a screen shows an image."""
    height, width = shape[-2] * scale, shape[-1] * scale
    canvas = Image.new("L", (width, height), 128)
    draw = ImageDraw.Draw(canvas)
    size = height // 2
    while size > 6 and draw.textlength(label, ImageFont.load_default(size)) > 0.9 * width:
        size -= 1
    draw.text((width / 2, height / 2), label, fill=0, font=ImageFont.load_default(size), anchor="mm")
    return np.array(canvas)[None]
