"""Configuration: every hyperparameter of sections 2 and 3 of the paper, with its source as data.

A configuration is a tree of frozen dataclasses; `simgan_core.profiles` has ready ones. Each field carries where its
value comes from (`Source`), why it was chosen, and the paper's own value where the paper gives one;
`simgan_core.deviations` writes the page of deviations from that. Unknown keys raise, with the nearest known one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, cast

from simgan_core.config_tree import build, child, dotted_names, nearest, plain

Source = Literal["paper", "v1", "v2", "re-implementations", "ours", "open"]
"""'paper': both versions of the paper agree. 'v1', 'v2': that version. 're-implementations': common there, not in the
paper. 'ours': our choice where the paper states another value or none. 'open': the sources disagree."""

Precision = Literal["auto", "fp32", "bf16"]


def setting(default: object, source: Source, reason: str, paper: str = "not given") -> Any:
    """A dataclass field with its provenance; `paper` is what the paper says, in words."""
    return field(default=default, metadata={"source": source, "reason": reason, "paper": paper})


def _require(condition: bool, name: str, found: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {found!r}; expected {expected}. Change it in the profile or by an override.")


@dataclass(frozen=True)
class DataConfig:
    """How many images, and of what shape (section 3.1, 'Data')."""

    synthetic_images: int = setting(24_000, "ours", "enough for some thousand small steps", "1.2 million")
    real_images: int = setting(3_000, "ours", "size of a generated stand-in target; real data bring their own", "214 K")
    test_images: int = setting(1_500, "ours", "size of a generated stand-in test set; real data bring their own", "all")
    size: tuple[int, int] = setting((35, 55), "paper", "(height, width) of the eye images", "35 x 55")
    channels: int = setting(1, "paper", "grey eye images; 3 = colour", "1 (eyes)")

    def __post_init__(self) -> None:
        """Reject sizes that no image has."""
        for name in ("synthetic_images", "real_images", "test_images"):
            _require(getattr(self, name) >= 2, f"data.{name}", getattr(self, name), "at least 2")
        _require(min(self.size) >= 8, "data.size", self.size, "(height, width) of at least 8 pixels each")
        _require(self.channels in (1, 3), "data.channels", self.channels, "1 (grey) or 3 (colour)")


@dataclass(frozen=True)
class RefinerConfig:
    """The refiner R: a fully convolutional ResNet (section 3.1, 'Implementation details')."""

    width: int = setting(64, "paper", "feature maps of every convolution; smaller profiles shrink it", "64")
    blocks: int = setting(4, "paper", "residual blocks; smaller profiles shrink it", "4 (eyes), 10 (hands)")
    kernel: int = setting(3, "paper", "side of the filters", "3 (eyes), 7 (hands)")
    channels: int = setting(1, "paper", "image channels in and out", "1")
    output: Literal["tanh", "none"] = setting(
        "tanh", "re-implementations", "keeps the refined image in [-1, 1]", "not given"
    )
    padding: Literal["zeros", "replicate"] = setting(
        "replicate", "ours", "zero padding drew frames along the border in our runs", "not given"
    )

    def __post_init__(self) -> None:
        """Reject networks that cannot be built."""
        _require(self.width >= 1, "refiner.width", self.width, "at least 1")
        _require(self.blocks >= 0, "refiner.blocks", self.blocks, "0 or more")
        _require(self.kernel % 2 == 1, "refiner.kernel", self.kernel, "an odd number, so that images keep their size")
        _require(self.channels in (1, 3), "refiner.channels", self.channels, "1 (grey) or 3 (colour)")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator D (section 2.2)."""

    kind: Literal["local", "global"] = setting(
        "local", "paper", "'global' is the paper's ablation of the local adversarial loss", "local"
    )
    channels: int = setting(1, "paper", "image channels in", "1")

    def __post_init__(self) -> None:
        """Reject channel counts that no image has."""
        _require(self.channels in (1, 3), "discriminator.channels", self.channels, "1 (grey) or 3 (colour)")


@dataclass(frozen=True)
class LossConfig:
    """Self-regularisation (section 2.1, equations 1 and 4)."""

    lambda_sum: float = setting(
        0.8,
        "ours",
        "weight of the L1 *sum* over pixels against the cross-entropy *sum* over patches; one re-implementer quotes "
        "an author with 0.01, others run 0.01 to 6.5 once put on this scale. Of 0.1 to 3.2 the largest whose gaze CNNs "
        "err within a standard error of the least on embedded's labelled stand-ins: no label of a real image "
        "(docs/selection.md, with how it came to be the default)",
    )
    psi: Literal["identity", "channel_mean", "derivatives", "learned"] = setting(
        "identity", "paper", "feature space of the self-regularisation", "identity (grey), mean of channels (colour)"
    )
    feature_net: str = setting(
        "", "ours", "psi = 'learned': file of a frozen feature net, a gaze CNN's weights", "named as an alternative"
    )

    def __post_init__(self) -> None:
        """Reject negative weights and a learned psi without its net."""
        _require(self.lambda_sum >= 0, "loss.lambda_sum", self.lambda_sum, "0 or more")
        if self.psi == "learned":
            expected = "a file of weights, as psi is 'learned'"
            _require(bool(self.feature_net), "loss.feature_net", self.feature_net, expected)

    @property
    def lambda_mean(self) -> float:
        """The same weight in mean form at the eyes' 35 x 55 pixels and 9 x 14 patches; see `Config.lambda_mean`."""
        return lambda_sum_to_mean(self.lambda_sum, (35, 55))


@dataclass(frozen=True)
class TrainingConfig:
    """Algorithm 1 and its pretraining (sections 2.3 and 3.1)."""

    steps: int = setting(900, "ours", "T of Algorithm 1: what a laptop does in minutes")
    batch: int = setting(32, "ours", "images of each kind per update; small batches use a CPU best", "512")
    k_g: int = setting(2, "v1", "refiner updates per step; users quoting v2 read 50, one reports collapse with it", "2")
    k_d: int = setting(1, "paper", "discriminator updates per step", "1")
    optimiser: Literal["adam", "sgd"] = setting(
        "adam", "ours", "needs no tuning of rates per network; SGD is a setting", "SGD (Algorithm 1)"
    )
    learning_rate: float = setting(1e-3, "paper", "for R and D alike", "0.001")
    beta1: float = setting(0.5, "ours", "Adam's momentum, as usual for adversarial training", "no Adam")
    momentum: float = setting(0.0, "paper", "SGD's momentum; re-implementations use 0.9", "plain SGD")
    history_images: int = setting(640, "ours", "B, the size of the history of refined images: 20 batches")
    pretrain_refiner: int = setting(150, "ours", "steps of R on the self-regularisation alone", "1,000")
    pretrain_discriminator: int = setting(50, "ours", "steps of D after that", "200")
    average_decay: float = setting(
        0.99, "ours", "exponential average of R's weights, which is exported: the last iterate oscillates; 0 = off"
    )
    log_every: int = setting(10, "ours", "steps between lines of metrics.jsonl")
    sample_every: int = setting(100, "ours", "steps between strips of synthetic and refined images")
    checkpoint_every: int = setting(300, "ours", "steps between checkpoints")
    precision: Precision = setting("auto", "ours", "bf16 where the processor has it, fp32 elsewhere")
    device: str = setting("auto", "ours", "CUDA where there is one, else the CPU")

    def __post_init__(self) -> None:
        """Reject step counts and rates that cannot train."""
        for name in ("steps", "pretrain_refiner", "pretrain_discriminator"):
            _require(getattr(self, name) >= 0, f"training.{name}", getattr(self, name), "0 or more")
        for name in ("k_g", "k_d", "log_every", "sample_every", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"training.{name}", getattr(self, name), "1 or more")
        _require(
            self.batch >= 2 and self.batch % 2 == 0,
            "training.batch",
            self.batch,
            "an even number, as half of the discriminator's refined images come from the history",
        )
        _require(
            self.history_images == 0 or self.history_images >= self.batch // 2,
            "training.history_images",
            self.history_images,
            f"0 (no history) or at least half a batch, {self.batch // 2}",
        )
        _require(self.learning_rate > 0, "training.learning_rate", self.learning_rate, "more than 0")
        for name in ("beta1", "momentum", "average_decay"):
            _require(0 <= getattr(self, name) < 1, f"training.{name}", getattr(self, name), "from 0 to below 1")


@dataclass(frozen=True)
class GazeConfig:
    """The gaze CNN and its training (section 3.1, 'Appearance-based gaze estimation'); augmentation is ours."""

    steps: int = setting(600, "ours", "updates of the gaze CNN")
    batch: int = setting(128, "ours", "images per update", "512")
    learning_rate: float = setting(1e-3, "paper", "peak rate at width 1; divided by the root of the width", "0.001")
    optimiser: Literal["adam", "sgd"] = setting("adam", "ours", "few steps suffice", "not given")
    schedule: Literal["constant", "cosine"] = setting(
        "cosine", "ours", "steadier last iterate; rises over a twentieth of the steps", "not given"
    )
    initial: Literal["he", "torch"] = setting(
        "he", "ours", "weights after He et al. and the labels' mean as first answer: learns in half the steps; 'torch' "
        "= PyTorch's own", "not given"
    )  # fmt: skip
    width: float = setting(1.0, "paper", "factor on the maps of every layer", "32, 32, 64, 80, 192, FC1000")
    augment_gain: float = setting(0.25, "ours", "augmented arms: contrast varies by this factor up and down", "none")
    augment_offset: float = setting(0.2, "ours", "augmented arms: brightness varies by this much", "none")
    augment_gradient: float = setting(0.5, "ours", "augmented arms: linear light gradient across the image", "none")
    augment_blur: float = setting(1.0, "ours", "augmented arms: largest blur, standard deviation in pixels", "none")
    augment_noise: float = setting(0.1, "ours", "augmented arms: largest standard deviation of the noise", "none")
    augment_shift: float = setting(1.0, "ours", "augmented arms: largest shift, pixels", "none")

    def __post_init__(self) -> None:
        """Reject step counts and rates that cannot train."""
        _require(self.steps >= 1, "gaze.steps", self.steps, "1 or more")
        _require(self.batch >= 1, "gaze.batch", self.batch, "1 or more")
        _require(self.learning_rate > 0, "gaze.learning_rate", self.learning_rate, "more than 0")
        _require(self.width > 0, "gaze.width", self.width, "more than 0")
        for name in (f.name for f in fields(self) if f.name.startswith("augment_")):
            _require(getattr(self, name) >= 0, f"gaze.{name}", getattr(self, name), "0 or more")


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on apart from its data and its seed."""

    profile: str = setting("cpu", "ours", "name of the profile that this came from")
    seeds: int = setting(
        3, "ours", "independent runs of the whole method, for intervals; profile `cpu` makes five on real eyes", "1"
    )
    ablation_seeds: int = setting(
        3,
        "ours",
        "most seeds of ablations and hands, the run's first: more seeds for the main arms stay affordable",
        "1",
    )
    stops: int = setting(
        3,
        "ours",
        "equally spaced steps at which a run's refiner is kept; the rule without labels takes one",
        "last step",
    )
    ablation_stop: int = setting(
        1,
        "ours",
        "which of these stops, counted from 1, ends the trainings of ablations; one that differs in nothing from the "
        "run's own is the run's own",
        "whole trainings",
    )
    data: DataConfig = field(default_factory=DataConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    gaze: GazeConfig = field(default_factory=GazeConfig)

    def __post_init__(self) -> None:
        """Reject parts that do not fit together."""
        for name in ("seeds", "ablation_seeds", "stops"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(
            1 <= self.ablation_stop <= self.stops, "ablation_stop", self.ablation_stop, f"1 to {self.stops}, stops"
        )
        channels = {self.data.channels, self.refiner.channels, self.discriminator.channels}
        if len(channels) != 1:
            raise ValueError(
                f"channels differ: data {self.data.channels}, refiner {self.refiner.channels}, discriminator "
                f"{self.discriminator.channels}; expected one number. "
                "Override all three, or use `simgan train --colour` (from Python `with_channels`)."
            )

    @property
    def lambda_mean(self) -> float:
        """`loss.lambda_sum` as the weight of a mean L1 against a mean cross-entropy, at this image size."""
        return lambda_sum_to_mean(self.loss.lambda_sum, self.data.size)


def patch_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the local discriminator's map for images of `size` (height, width): two halvings, up."""
    height, width = size
    return -(-height // 4), -(-width // 4)


def lambda_sum_to_mean(lambda_sum: float, size: tuple[int, int]) -> float:
    """The one conversion of lambda: weight of *mean* L1 over pixels against *mean* cross-entropy over patches.

    The paper's losses are sums. sum = mean * count on both sides, so lambda_mean = lambda_sum * pixels / patches
    (eyes: 1925 / 126 = 15.3). Projects that average without this factor differ by as much.
    """
    rows, columns = patch_grid(size)
    return lambda_sum * size[0] * size[1] / (rows * columns)


def with_overrides(config: Config, overrides: Mapping[str, object]) -> Config:
    """A copy of `config` with values replaced by dotted name, e.g. `{'loss.lambda_sum': 0.3}`.

    Values may be text, as from a command line. Unknown names, wrong types and impossible values raise `ValueError`.
    """
    tree = to_dict(config)
    for dotted, value in overrides.items():
        node, *path = [tree, *dotted.split(".")]
        for key in path[:-1]:
            node = child(node, key, dotted)
        if path[-1] not in node:
            raise ValueError(f"configuration has no {dotted!r}.{nearest(dotted, dotted_names(tree))}")
        if isinstance(node[path[-1]], dict):
            raise ValueError(f"{dotted!r} is a section; override one of its values, e.g. {dotted_names(tree)[-1]!r}.")
        node[path[-1]] = value
    return from_dict(tree)


def with_channels(config: Config, channels: int) -> Config:
    """A copy for grey (1) or colour (3) images; colour takes the paper's psi, the mean of the channels."""
    psi = "channel_mean" if channels == 3 and config.loss.psi == "identity" else config.loss.psi
    return replace(
        config,
        data=replace(config.data, channels=channels),
        refiner=replace(config.refiner, channels=channels),
        discriminator=replace(config.discriminator, channels=channels),
        loss=replace(config.loss, psi=psi),
    )


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    return cast("dict[str, Any]", plain(config))


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The configuration of nested dictionaries; missing keys take their defaults, unknown ones raise `ValueError`."""
    return cast(Config, build(Config, tree, ""))


def to_json(config: Config) -> str:
    """The configuration as indented JSON text."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """The configuration of JSON text; unknown keys and wrong types raise `ValueError`."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the configuration is not JSON ({error}); expected what `to_json` writes.") from error
    return from_dict(tree)
