"""Batched eye simulators in torch: shape, textures and light in, labelled images out."""

from simgan_core.simulators.assets import EyeAssets, EyeballGeometry, LashAssets
from simgan_core.simulators.eye import EyeBatch, EyeLabels, EyeSimulator
from simgan_core.simulators.ranges import EyeParameters, EyeRanges, published_prior
from simgan_core.simulators.simulate import load_assets, simulate_eyes

__all__ = [
    "EyeAssets",
    "EyeBatch",
    "EyeLabels",
    "EyeParameters",
    "EyeRanges",
    "EyeSimulator",
    "EyeballGeometry",
    "LashAssets",
    "load_assets",
    "published_prior",
    "simulate_eyes",
]
