"""Algorithm 1 on depth hands: the eyes' training with the networks for hands (section 3.2)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from simgan_core.config import Config
from simgan_core.config_hand import HandConfig
from simgan_core.datasets.store import Store
from simgan_core.hand_models import HandGlobalDiscriminator, HandLocalDiscriminator, HandRefiner
from simgan_core.models import Refiner
from simgan_core.training import train


def build_hand_networks(hand: HandConfig, config: Config, seed: int) -> tuple[Refiner, nn.Module]:
    """R and D with weights drawn from `seed`, R set to the identity; torch's global generator is left as it was.

    `config` decides whether D is local or global; the rest comes from `hand`.
    """
    size = config.data.size
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        refiner = HandRefiner(config.refiner, size, hand.wide)
        refiner.start_at_identity()
        kind = HandGlobalDiscriminator if config.discriminator.kind == "global" else HandLocalDiscriminator
        return refiner, kind(config.discriminator.channels, hand.first_stride, hand.discriminator_width, size)


def train_hand_refiner(
    synthetic: Store,
    target: Store,
    out: Path,
    hand: HandConfig,
    *,
    seed: int,
    kind: str = "local",
    resume: bool = False,
    progress: bool = True,
) -> Path:
    """`training.train` for depth hands; `kind` is that of the discriminator, 'local' or 'global'; labels unread."""
    config = hand.global_method() if kind == "global" else hand.method

    def build(config: Config, seed: int) -> tuple[Refiner, nn.Module]:
        return build_hand_networks(hand, config, seed)

    return train(synthetic, target, out, config, seed=seed, resume=resume, progress=progress, build=build)
