"""Colour eyes and a target of another colour: what psi = mean of the channels is for (section 2.1, claim C8).

Synthetic: procedural eyes in colour under neutral light. Target: other procedural eyes through the camera model under
warm light, the *stand-in* of a real colour data set. Both are rendered here and show nobody, whatever the run's data.
How far refined eyes have gone from one to the other is measured by their mean chroma, pixel by pixel (R - G, B - G).

Legend: N images, H W image; colour images are uint8 [N, 3, H, W].
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core import stages
from simgan_core.ablations import Job, Variant, budget, do_job, refined_count, settings_key
from simgan_core.config import Config, with_overrides
from simgan_core.datasets.prepare import SIMULATOR, target_ranges
from simgan_core.datasets.store import Store
from simgan_core.evaluation.statistics import Estimate, two_level_bootstrap
from simgan_core.images import LUMA
from simgan_core.locks import alone
from simgan_core.provenance import code_fingerprint, read_json, write_json
from simgan_core.regularisation import shift_of
from simgan_core.run_folder import RunFolder
from simgan_core.simulators.procedural_assets import procedural_assets
from simgan_core.simulators.ranges import EyeRanges
from simgan_core.simulators.sensor import CameraModel
from simgan_core.simulators.simulate import describe_ranges, simulate_eyes
from simgan_core.workers import side_by_side

Images = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

WARM = (1.35, 1.0, 0.55)
"""Gains of red, green and blue in linear light: about a bulb of 3,500 K seen by a camera set for daylight."""
SHARE = 0.15
"""Of the profile's synthetic images: colour eyes of each kind."""
CHROMA_LIMIT = 500
"""Refined images that the chroma is measured on."""
FACTORS = (1.0, 10.0)
"""Lambda relative to the default, and ten times as much, where an L1 holds every channel."""
PSIS = {"identity": "Ψ = identity", "channel_mean": "Ψ = mean of channels"}


@dataclass(frozen=True)
class WarmCamera:
    """A camera under warm light; the luma stays about the same, so that only the colour differs."""

    camera: CameraModel
    gains: tuple[float, float, float] = WARM

    def __call__(self, images: Tensor, seed: int, indices: list[int]) -> Tensor:
        """Photograph renders [B, 3, H, W], sRGB-coded in [0, 1]; see `CameraModel`."""
        gains = torch.tensor(self.gains) / float(np.dot(self.gains, LUMA))
        lit = (_linear(images) * gains.to(images)[:, None, None]).clamp(0, 1)
        return self.camera(_coded(lit), seed, indices)


def _linear(coded: Tensor) -> Tensor:
    return torch.where(coded <= 0.04045, coded / 12.92, ((coded.clamp(min=0) + 0.055) / 1.055) ** 2.4)


def _coded(linear: Tensor) -> Tensor:
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def colour_stores(run: RunFolder, *, progress: bool = True) -> tuple[Store, Store]:
    """Colour eyes and their warm target, rendered once into `RUN/ablations/`; the target's labels are never read."""
    folder = run.path / "ablations"
    count = max(32, round(SHARE * run.config.data.synthetic_images))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    render = functools.partial(simulate_eyes, count, size=run.config.data.size, colour=True, device=device)
    made_with: dict[str, Any] = {"code": [code_fingerprint(source) for source in SIMULATOR], "count": count}
    made_with |= {"warm": list(WARM), "size": list(run.config.data.size), "target": describe_ranges(target_ranges())}
    made_with = json.loads(json.dumps(made_with))  # as it is read again: lists in place of tuples
    stamp = folder / f"colour.{stages.MADE_WITH}"
    with alone(folder / ".colour.lock"):
        paths = [folder / "colour_synthetic", folder / "colour_target"]
        made = stamp.is_file() and read_json(stamp) == made_with
        if not made or any(stages.whole(path) is None for path in paths):
            stamp.unlink(missing_ok=True)
            how: dict[str, Any] = {"overwrite": True, "progress": progress}
            render(paths[0], assets=procedural_assets(seed=0), ranges=EyeRanges(), seed=100, **how)
            render(
                paths[1], assets=procedural_assets(seed=1, variant="target"), ranges=target_ranges(), seed=101,
                sensor=WarmCamera(CameraModel()), **how,
            )  # fmt: skip
            write_json(stamp, made_with)
    return Store.open(paths[0]), Store.open(paths[1])


def colour_variants(config: Config, factors: Sequence[float] = FACTORS) -> tuple[Variant, ...]:
    """Psi = identity and psi = mean of the channels at each of `factors` times lambda, of equal price for brightness.

    A change of all three channels by d costs the identity 3 d per pixel and the mean of the channels d. Lambda is
    divided by three for the identity, so that both hold brightness, and with it the label, equally. Names are those of
    `variant_name`.
    """
    channels = {f"{part}.channels": 3 for part in ("data", "refiner", "discriminator")}
    return tuple(
        Variant(
            variant_name(psi, factor),
            f"{title}, λ = {factor * config.loss.lambda_sum:g}{'/3' if psi == 'identity' else ''}",
            channels | {"loss.psi": psi, "loss.lambda_sum": _lambda(config, psi, factor)},
        )
        for factor in factors
        for psi, title in PSIS.items()
    )


def strictest(titles: Mapping[str, str]) -> dict[str, str]:
    """Of titles by variant those with the largest lambda, in the order of `PSIS`."""
    names = [variant_name(psi, FACTORS[-1]) for psi in PSIS]
    return {name: titles[name] for name in names}


def variant_name(psi: str, factor: float = 1.0) -> str:
    """Name of a variant: that of its psi, with the factor of lambda where it is not the default."""
    return psi if factor == 1.0 else f"{psi}_x{factor:g}"


def _lambda(config: Config, psi: str, factor: float) -> float:
    return factor * config.loss.lambda_sum / (3 if psi == "identity" else 1)


@dataclass(frozen=True)
class ColourResult:
    """Colour eyes before, the target, and after each variant's refiner: `refined[name]` has one array per seed."""

    synthetic: Store
    target: Store
    refined: dict[str, list[Images]]

    def renders(self) -> Images:
        """The renders that were refined, [M, 3, H, W]."""
        count = len(next(iter(self.refined.values()))[0])
        return self.synthetic.images(slice(0, count))

    def closed_percent(self, name: str) -> Floats:
        """Share of the colour gap that each image has closed, percent [S, N]; see `gap_closed_percent`."""
        before, target = self.renders()[:CHROMA_LIMIT], self.target.images()
        return np.stack([gap_closed_percent(before, images[:CHROMA_LIMIT], target) for images in self.refined[name]])

    def mean_closed_percent(self, name: str) -> float:
        """The same share for the *mean* chroma of all images of a seed, mean over seeds: their spread costs nothing."""
        before, target = chroma(self.renders()[:CHROMA_LIMIT]).mean(axis=0), chroma(self.target.images()).mean(axis=0)
        after = np.stack([chroma(images[:CHROMA_LIMIT]).mean(axis=0) for images in self.refined[name]])
        left = np.linalg.norm(target - after, axis=1) / np.linalg.norm(target - before)
        return float(100.0 * (1.0 - left).mean())

    def spread(self, name: str) -> float:
        """Standard deviation of the refined images' chroma around their mean, in that of the target, mean of seeds."""
        target = chroma(self.target.images()).std(axis=0)
        found = [chroma(images[:CHROMA_LIMIT]).std(axis=0) for images in self.refined[name]]
        return float(np.linalg.norm(found, axis=1).mean() / np.linalg.norm(target))

    def gain_points(self, factor: float) -> Estimate:
        """Percentage points of the colour gap that the mean of channels closes beyond the identity, at that lambda.

        Seeds and images are paired.
        """
        mean, identity = (self.closed_percent(variant_name(psi, factor)) for psi in ("channel_mean", "identity"))
        return two_level_bootstrap(mean - identity)


def train_colour(
    run: RunFolder, seeds: Sequence[int], *, workers: int | None = None, progress: bool = True
) -> ColourResult:
    """Refine colour eyes towards the warm target with both psis, at each of `FACTORS` times lambda."""
    synthetic, target = colour_stores(run, progress=progress)
    grey = budget(run.config)
    jobs = {}
    for variant in colour_variants(run.config):
        config = with_overrides(grey, variant.overrides)
        key = settings_key(synthetic, target, config)
        count = min(len(synthetic), refined_count(run.config, synthetic))
        for seed in seeds:
            folder = run.path / "ablations" / key / f"seed-{seed}"
            jobs[variant.name, seed] = Job(folder, seed, grey, config, synthetic.path, target.path, count, None)
    side_by_side(do_job, list(jobs.values()), title="colour eyes", workers=workers, progress=progress)
    names = [variant.name for variant in colour_variants(run.config)]
    refined = {name: [np.load(jobs[name, seed].folder / "refined.npy") for seed in seeds] for name in names}
    return ColourResult(synthetic, target, refined)


def gap_closed_percent(before: Images, after: Images, target: Images) -> Floats:
    """Which part of the colour gap each image has closed, percent [N]: what its *change* leaves of the *mean* gap.

    100 is a change by just the distance between the two sets' mean chromas. Going further, or aside, leaves a gap again
    and counts as that: no more than 100. So a refiner that moves every image alike reaches 100, and one that moves each
    to the target's mean, the nearer ones less, does not.
    """
    moved = chroma(after) - chroma(before)
    gap = chroma(target).mean(axis=0) - chroma(before).mean(axis=0)
    left = np.linalg.norm(gap - moved, axis=1)
    return np.asarray(100.0 * (1.0 - left / np.linalg.norm(gap)))


def chroma(images: Images) -> Floats:
    """Mean R - G and B - G of colour images [N, 3, H, W], in grey levels, [N, 2]."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images {images.shape} found; colour ones [N, 3, H, W] expected")
    red, green, blue = images.mean(axis=(2, 3), dtype=np.float64).T
    return np.stack([red - green, blue - green], axis=1)


def colour_table(result: ColourResult, titles: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """One row per variant: colour gap closed, brightness, pupil shift; each one's shift also as text, by name."""
    before, rows, shifts = result.renders()[:CHROMA_LIMIT], [], {}
    for name, refined in result.refined.items():
        closed = two_level_bootstrap(result.closed_percent(name))
        brightness = float(
            np.mean([np.abs(_brightness(r[: len(before)]) - _brightness(before)).mean() for r in refined])
        )
        shift = shift_of(before, [images[: len(before)] for images in refined])
        moved, deviation = (None, None) if shift is None else (shift.mean_px.value, shift.sd_px)
        shifts[name] = "no iris found" if shift is None else f"{moved:.2f} ± {deviation:.2f} px"
        means = (result.mean_closed_percent(name), result.spread(name))
        rows.append((titles[name], closed.value, closed.low, closed.high, *means, brightness, moved, deviation))
    names = ["refiner", "colour gap closed (%)", "low", "high", "of the mean colour (%)", "spread / target's"]
    names += ["brightness changed by", "pupil shift (px)", "± sd"]
    return pd.DataFrame(rows, columns=names), shifts


def _brightness(images: Images) -> Floats:
    return np.asarray(images.mean(axis=1, dtype=np.float64))
