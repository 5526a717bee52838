"""Values that came from a browser: printable text of bounded length, finite numbers within bounds, or nothing."""

from __future__ import annotations

import math


def printable(text: str, length: int) -> str:
    """Printable characters only, at most `length`."""
    return "".join(character if character.isprintable() else "?" for character in text[:length])


def number_up_to(value: object, most: float) -> float | None:
    """A finite number from 0 to `most`, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and 0 <= value <= most else None


def window_columns(window: tuple[int, int] | None, pixel_ratio: float | None) -> dict[str, float | None]:
    """The columns of a window."""
    width, height = (None, None) if window is None else (_pixels(window[0]), _pixels(window[1]))
    return {"window_width": width, "window_height": height, "pixel_ratio": number_up_to(pixel_ratio, 100.0)}


def _pixels(value: object) -> int | None:
    number = number_up_to(value, 100_000.0)
    return None if number is None else round(number)
