"""What the tests of the study's screen share: small studies, a server as a process, and a real browser."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from simgan_core.study.creation import create_study
from simgan_core.study.pictures import encode_png
from simgan_core.study.plan import StudySettings
from simgan_core.study.records import Picture
from simgan_core.study.storage import StudyStore

CHROMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PATIENCE_MS = 120_000  # of the browser: CI's two cores are shared with other tests
NAMES = ("SECRETNAME_REAL", "SECRETNAME_REFINED", "SECRETNAME_SYNTHETIC")


@cache
def eye(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:35, :55]
    iris = 150 - 90 * np.exp(-((x - 27 - seed % 7) ** 2 + (y - 17) ** 2) / 60) + rng.normal(0, 6, (35, 55))
    return encode_png(iris.clip(0, 255).astype(np.uint8)[None])


def small_study(where: Path | str, **settings: Any) -> StudyStore:
    """Two practice trials and six others (two attention checks among them), unless told otherwise."""
    chosen: dict[str, Any] = {
        "subjects": 4, "real": 2, "refined": 2, "control": 0, "practice": 2, "attention": 2, "fixation_ms": 50,
        "break_every": 4,
    }  # fmt: skip
    chosen |= settings
    pictures = {
        source: [Picture(f"{name}_{index}.png", eye(100 * place + index)) for index in range(12)]
        for place, (source, name) in enumerate(zip(("real", "refined", "synthetic"), NAMES, strict=True))
    }
    return create_study(where, StudySettings(**chosen), pictures, simulated=True)  # type: ignore[arg-type]


def truths(study: StudyStore, participant: str) -> list[str]:
    return [row["truth"] for row in study.rows() if row["subject"] == participant]


def study_file(study: StudyStore) -> Path:
    return Path(str(study._engine.url.database))


def find_chrome() -> str | None:
    """`SIMGAN_CHROME`, else the first Chrome or Chromium on the path."""
    named = os.environ.get("SIMGAN_CHROME")
    return named or next((found for name in CHROMES if (found := shutil.which(name))), None)


def need_chrome() -> str:
    if importlib.util.find_spec("playwright") is None:
        _do_without("the browser tests need playwright: pip install playwright")
    chrome = find_chrome()
    if chrome is None:
        _do_without(
            "no Chrome or Chromium found: install one (Debian: apt-get install chromium) or name it in SIMGAN_CHROME"
        )
    return chrome


def _do_without(reason: str) -> NoReturn:
    """Skip, visibly; in continuous integration, which installs a browser, its absence is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true: no skip)", pytrace=False)
    pytest.skip(reason)


def contrast(one: str, other: str) -> float:
    """Contrast of two CSS colours 'rgb(r, g, b)' by WCAG 2.2."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
