"""Configuration of the hand half of the paper (section 3.2): data, refiner, estimator, and the sizes of each profile.

Apart from `config.py`, as the eyes' stages depend on that file. `HandConfig.method` is the same tree that Algorithm 1
takes for eyes, so that loss, Kg, Kd, history and optimiser are the same code and the same settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from simgan_core.config import (
    Config,
    DataConfig,
    DiscriminatorConfig,
    LossConfig,
    RefinerConfig,
    TrainingConfig,
    setting,
)
from simgan_core.config_tree import nearest, plain
from simgan_core.hand_models import PATCHES, WideFilters

PAPER_SIDE = 224
"""Side of the paper's crops, in whose pixels all distances are reported, whatever the profile's images."""


@dataclass(frozen=True)
class HandDataConfig:
    """How many hands (section 3.2, 'Dataset'). Every synthetic pose is rendered from three cameras."""

    poses: int = setting(72_757, "paper", "labelled synthetic poses, each in three views", "72,757")
    target_poses: int = setting(72_757, "paper", "poses of the target domain, in three views too", "72,757")
    validation: int = setting(2_000, "ours", "frontal target images, for choosing settings alone", "not given")
    test: int = setting(8_252, "paper", "frontal target images that nothing else has seen", "8,251 (8,252 files)")

    def __post_init__(self) -> None:
        """Reject counts that leave nothing to learn or to measure."""
        _at_least(self, "hand.data", {"poses": 2, "target_poses": 2, "validation": 2, "test": 2})


@dataclass(frozen=True)
class HourglassConfig:
    """The stacked hourglass and its training (section 3.2, 'Implementation details')."""

    stacks: int = setting(2, "paper", "hourglasses, each with heatmaps of its own", "2")
    heatmap: int = setting(64, "paper", "side of the heatmaps in cells", "64")
    stem_stride: int = setting(4, "ours", "image pixels per cell: 4 as Newell et al.", "not given")
    features: int = setting(256, "ours", "maps of every layer: 256 as Newell et al.", "not given")
    depth: int = setting(4, "ours", "halvings in an hourglass: 4 as Newell et al.", "not given")
    sigma: float = setting(1.0, "ours", "standard deviation of the target Gaussians, cells", "not given")
    steps: int = setting(20_000, "ours", "updates of the network", "not given")
    batch: int = setting(32, "ours", "images per update", "not given")
    learning_rate: float = setting(
        1e-3, "ours", "peak rate of Adam, reached after a twentieth of the steps", "not given"
    )
    rotate_deg: float = setting(20.0, "paper", "augmentation: largest rotation either way", "20 degrees")
    crop: float = setting(0.1, "ours", "augmentation: crops differ in size and place by up to this share of the side",
                          "crops; amount not given")  # fmt: skip

    def __post_init__(self) -> None:
        """Reject networks that cannot be built and steps that cannot train."""
        floors = {"stacks": 1, "heatmap": 4, "features": 4, "depth": 1, "steps": 1, "batch": 2}
        _at_least(self, "hand.estimator", floors)
        if self.stem_stride not in (1, 2, 4):
            raise ValueError(f"hand.estimator.stem_stride is {self.stem_stride!r}; expected 1, 2 or 4.")
        if self.heatmap % 2**self.depth:
            raise ValueError(
                f"hand.estimator.heatmap is {self.heatmap}; expected a multiple of {2**self.depth}, as the hourglass "
                f"halves it {self.depth} times. Change heatmap or depth."
            )
        if self.learning_rate <= 0 or self.sigma <= 0 or self.rotate_deg < 0 or not 0 <= self.crop < 0.5:
            raise ValueError(f"{self}; expected a positive rate and sigma, no negative rotation, crop below 0.5.")

    @property
    def input(self) -> int:
        """Side of the images that the network sees."""
        return self.heatmap * self.stem_stride


@dataclass(frozen=True)
class HandConfig:
    """Everything that the hand experiment depends on apart from its data and its seeds."""

    profile: str
    wide: WideFilters = setting("all", "open", "which convolutions of R are 7 x 7", "7 x 7; which is not said")
    discriminator_width: float = setting(1.0, "paper", "factor on D's maps; smaller profiles shrink it", "96, 64, 32")
    data: HandDataConfig = field(default_factory=HandDataConfig)
    method: Config = field(default_factory=Config)
    estimator: HourglassConfig = field(default_factory=HourglassConfig)

    @property
    def side(self) -> int:
        """Side of the crops, pixels."""
        return self.method.data.size[0]

    @property
    def first_stride(self) -> int:
        """Stride of D's first convolution: the paper's 4 at 224 pixels, in proportion below."""
        return self.side // (PATCHES * 8)

    def global_method(self) -> Config:
        """The same method with the global discriminator."""
        return _method(self.method.training, self.method.refiner, self.side, kind="global")


# No profile pretrains R. It starts at the identity, where the self-regularisation and its gradient are exactly zero:
# such steps only age Adam's estimates, whose bias correction then makes the first adversarial steps too large by far.
LAMBDA_SUM = 0.004
"""Weight of the L1 sum against the sum over 49 patches at 224 x 224 pixels; see `_lambda`."""


def _lambda(side: int) -> float:
    """The weight at another size, such that mean L1 and mean cross-entropy keep their ratio: patches stay 7 x 7."""
    return LAMBDA_SUM * (PAPER_SIDE / side) ** 2


def _method(
    training: TrainingConfig, refiner: RefinerConfig, side: int, kind: Literal["local", "global"] = "local"
) -> Config:
    return Config(
        profile="hand",
        data=DataConfig(size=(side, side)),
        refiner=refiner,
        discriminator=DiscriminatorConfig(kind=kind),
        loss=LossConfig(lambda_sum=_lambda(side)),
        training=training,
    )


def _at_least(node: object, where: str, floors: Mapping[str, int]) -> None:
    for name, floor in floors.items():
        found = getattr(node, name)
        if found < floor:
            raise ValueError(f"{where}.{name} is {found!r}; expected {floor} or more.")


def smoke() -> HandConfig:
    """Everything executes, nothing is learnt: for continuous integration."""
    training = TrainingConfig(
        steps=4, batch=4, history_images=8, pretrain_refiner=0, pretrain_discriminator=2, log_every=2, sample_every=100,
        checkpoint_every=100,
    )  # fmt: skip
    return HandConfig(
        profile="smoke",
        wide="first",
        discriminator_width=0.5,
        data=HandDataConfig(poses=24, target_poses=24, validation=8, test=12),
        method=_method(training, RefinerConfig(width=4, blocks=1, kernel=7, output="none"), 56),
        estimator=HourglassConfig(heatmap=8, stem_stride=4, features=8, depth=2, steps=4, batch=4),
    )


def cpu() -> HandConfig:
    """An honest result on a laptop, in minutes: crops of 56 pixels, a narrow refiner and a narrow hourglass."""
    training = TrainingConfig(
        steps=250, batch=12, history_images=240, pretrain_refiner=0, pretrain_discriminator=200, sample_every=100,
    )  # fmt: skip
    return HandConfig(
        profile="cpu",
        wide="first",
        discriminator_width=0.5,
        data=HandDataConfig(poses=1_500, target_poses=1_500, validation=300, test=600),
        method=_method(training, RefinerConfig(width=16, blocks=2, kernel=7, output="none"), 56),
        estimator=HourglassConfig(
            heatmap=16, stem_stride=4, features=64, depth=3, steps=1_100, batch=16, learning_rate=2e-2
        ),
    )


def gpu() -> HandConfig:
    """The paper's networks on one data-centre GPU; minutes per training."""
    training = TrainingConfig(
        steps=600, batch=32, history_images=640, pretrain_refiner=0, pretrain_discriminator=200, sample_every=200,
        checkpoint_every=200,
    )  # fmt: skip
    return HandConfig(
        profile="gpu",
        wide="all",
        data=HandDataConfig(poses=10_000, target_poses=10_000, validation=500, test=2_000),
        method=_method(training, RefinerConfig(width=64, blocks=10, kernel=7, output="none"), PAPER_SIDE),
        estimator=HourglassConfig(steps=2_000, batch=64),
    )


def paper() -> HandConfig:
    """The paper's own numbers of images; steps where it gives them (pretraining of D: 200)."""
    training = TrainingConfig(
        steps=10_000, batch=32, history_images=3_200, pretrain_refiner=0, pretrain_discriminator=200,
        sample_every=500, checkpoint_every=500,
    )  # fmt: skip
    return HandConfig(
        profile="paper",
        wide="all",
        data=HandDataConfig(),
        method=_method(training, RefinerConfig(width=64, blocks=10, kernel=7, output="none"), PAPER_SIDE),
    )


PROFILES: Mapping[str, Callable[[], HandConfig]] = {"smoke": smoke, "cpu": cpu, "gpu": gpu, "paper": paper}


def hand_profile(name: str) -> HandConfig:
    """The hand configuration of that name: 'smoke', 'cpu', 'gpu' or 'paper'."""
    if name not in PROFILES:
        expected = ", ".join(PROFILES)
        raise ValueError(f"profile {name!r} is not known; expected one of {expected}.{nearest(name, PROFILES)}")
    return PROFILES[name]()


def to_dict(config: HandConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    return cast("dict[str, Any]", plain(config))
