"""Profiles: ready configurations by name. They differ in sizes (images, steps, widths, seeds) and in nothing else.

Apart from `config.py`, on which trainings depend: what one profile says puts no training of another out of date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from simgan_core.config import Config, DataConfig, GazeConfig, RefinerConfig, TrainingConfig
from simgan_core.config_tree import nearest


def smoke() -> Config:
    """Everything executes, nothing is learnt: for continuous integration."""
    return Config(
        profile="smoke",
        seeds=2,
        stops=1,
        data=DataConfig(synthetic_images=256, real_images=192, test_images=96),
        refiner=RefinerConfig(width=8, blocks=1),
        training=TrainingConfig(
            steps=8,
            batch=8,
            history_images=32,
            pretrain_refiner=8,
            pretrain_discriminator=4,
            log_every=2,
            sample_every=4,
            checkpoint_every=4,
        ),
        gaze=GazeConfig(steps=8, batch=16, width=0.25),
    )


def cpu() -> Config:
    """An honest result on a laptop, in minutes."""
    return Config(
        profile="cpu",
        seeds=3,
        data=DataConfig(synthetic_images=24_000, real_images=3_000, test_images=1_500),
        # The paper's depth at half its width. Chosen without labels: two blocks need twice the steps for the same AUC
        # of a fresh D against real images, and then move irises further.
        refiner=RefinerConfig(width=32, blocks=4),
        # Batches of 8 reach the AUC of 900 steps of 32 with 0.4 of the images, if the history stays at 20 batches; one
        # of 640 images grows old and does not (real images: 0.87 against 0.81), nor do 2,000 steps of 4 with it (0.90).
        training=TrainingConfig(
            steps=1_350,
            batch=8,
            history_images=160,
            pretrain_refiner=150,
            pretrain_discriminator=50,
            sample_every=50,
        ),
        # Chosen on the labelled stand-ins that only the oracle sees (the rate on held-out renders). Where images are
        # augmented, half this width errs by 0.2 degrees more, and so do 2,000 steps, or batches of 16.
        gaze=GazeConfig(steps=3_000, batch=32, width=0.5),
    )


def gpu() -> Config:
    """The paper's networks and batch on one data-centre GPU, minutes per seed."""
    return Config(
        profile="gpu",
        seeds=5,
        ablation_seeds=5,
        data=DataConfig(synthetic_images=100_000, real_images=20_000, test_images=5_000),
        refiner=RefinerConfig(width=64, blocks=4),
        training=TrainingConfig(
            steps=2_000, batch=512, history_images=10_240, pretrain_refiner=500, pretrain_discriminator=100
        ),
        gaze=GazeConfig(steps=2_000, batch=512),
    )


def paper() -> Config:
    """The paper's own numbers of images and steps, where it gives them."""
    return Config(
        profile="paper",
        seeds=5,
        ablation_seeds=5,
        ablation_stop=3,
        data=DataConfig(synthetic_images=1_200_000, real_images=213_659, test_images=45_000),
        refiner=RefinerConfig(width=64, blocks=4),
        training=TrainingConfig(
            steps=10_000,
            batch=512,
            history_images=10_240,
            pretrain_refiner=1_000,
            pretrain_discriminator=200,
            sample_every=500,
            checkpoint_every=1_000,
        ),
        gaze=GazeConfig(steps=10_000, batch=512),
    )


PROFILES: Mapping[str, Callable[[], Config]] = {"smoke": smoke, "cpu": cpu, "gpu": gpu, "paper": paper}


SEEDS_ON_REAL: Mapping[str, int] = {"cpu": 5}
"""Seeds of runs on real eyes by profile, where these are more: the paper's claims are of real images."""


def profile(name: str, data: str = "embedded") -> Config:
    """The configuration of that name, 'smoke', 'cpu', 'gpu' or 'paper', for runs on `data`.

    Data decide how many seeds there are, and nothing else.
    """
    if name not in PROFILES:
        expected = ", ".join(PROFILES)
        raise ValueError(f"profile {name!r} is not known; expected one of {expected}.{nearest(name, PROFILES)}")
    config = PROFILES[name]()
    return config if data == "embedded" else replace(config, seeds=SEEDS_ON_REAL.get(name, config.seeds))
