"""The refiner and the discriminators for depth hands (section 3.2, 'Implementation details').

Shapes: B batch, C image channels (1: depth), H W height and width, h w D's map of patches. Images are floats in
[-1, 1]. Paper's size: 224 x 224. Smaller images take the same networks with the first stride of D reduced in
proportion, so that D keeps its 7 x 7 patches and each patch sees about the same part of a hand.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from simgan_core.checkpoints import REFINER, load_weights
from simgan_core.config import RefinerConfig, from_json
from simgan_core.models import Refiner, ResidualBlock, channels_last, to_channels_last

WideFilters = Literal["all", "first"]
"""Which convolutions of R are 7 x 7: the paper's sentence admits both readings."""
PAPER_SIZE = (224, 224)
PATCHES = 7
"""Rows, and columns, of the local D's map at the paper's size."""


class HandRefiner(Refiner):
    """R for hands: as for the eyes, with filters of 7 x 7 and 10 residual blocks.

    Open in the paper: 'filter size of 7 x 7, 10 ResNet blocks' may mean every convolution (`wide` = 'all', 4,018,625
    parameters, 202 GMAC an image) or the first one alone, blocks staying 3 x 3 as for eyes ('first': 741,825, 37 GMAC).
    """

    def __init__(self, config: RefinerConfig, size: tuple[int, int] = PAPER_SIZE, wide: WideFilters = "all") -> None:
        super().__init__(config, size)
        self.wide = wide
        if wide == "first":
            blocks = (ResidualBlock(config.width, 3, config.padding) for _ in range(config.blocks))
            self.blocks = nn.Sequential(*blocks)

    @torch.no_grad()
    def start_at_identity(self) -> None:
        """Set the weights such that R(x) = x, up to rounding; needs output 'none'. The other maps stay at random.

        The paper starts R near the identity by training it on the self-regularisation alone. With weights at random
        that takes far longer than a small profile has: what is left of the error sits at the depth edges, which D then
        judges. From here that phase only has to stay. One map carries x + 1 through the ReLUs; a block adds nothing
        until its second convolution has learnt.
        """
        if self.config.output != "none":
            raise ValueError(f"refiner.output is {self.config.output!r}; expected 'none', as tanh bends the identity.")
        middle = self.head.kernel_size[0] // 2
        for block in self.blocks.modules():
            if isinstance(block, ResidualBlock):
                _set(block.second, 0.0)
        _set(self.tail, 0.0, bias=-1.0)
        for channel in range(self.config.channels):
            self.head.weight[channel] = 0.0
            self.head.weight[channel, channel, middle, middle] = 1.0
            self.tail.weight[channel, channel] = 1.0
            if self.head.bias is not None:
                self.head.bias[channel] = 1.0


def _set(layer: nn.Conv2d, weight: float, bias: float = 0.0) -> None:
    nn.init.constant_(layer.weight, weight)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


class HandLocalDiscriminator(nn.Module):
    """D for hands, fully convolutional: conv7x7/4 96, conv5x5/2 64, maxpool3x3/2, conv3x3/2 32, conv1x1 32, conv1x1 2.

    178,050 parameters; with 'same' padding 224 x 224 pixels give 7 x 7 patches, each of 71 x 71 pixels. The list is
    likely the paper's (one source); its padding is not given. `first_stride` is 4 in the paper; `width` is a factor
    on the maps, 1 in the paper.
    """

    def __init__(
        self, channels: int = 1, first_stride: int = 4, width: float = 1.0, size: tuple[int, int] = PAPER_SIZE
    ) -> None:
        super().__init__()
        self.features = _features(channels, first_stride, width)
        self.classes = nn.Conv2d(_maps(32, width), 2, kernel_size=1)
        self.patches = math.prod(hand_patch_grid(size, first_stride))

    def forward(self, images: Tensor) -> Tensor:
        """Images B C H W -> logits B 2 h w, class 0 real, class 1 refined."""
        logits: Tensor = self.classes(self.features(channels_last(images)))
        return logits


class HandGlobalDiscriminator(nn.Module):
    """The paper's ablation for its figure of depth edges: the same features, one fully connected decision per image."""

    def __init__(
        self, channels: int = 1, first_stride: int = 4, width: float = 1.0, size: tuple[int, int] = PAPER_SIZE
    ) -> None:
        super().__init__()
        self.features = _features(channels, first_stride, width)
        self.patches = math.prod(hand_patch_grid(size, first_stride))
        """Its one decision weighs as much as the local D's patches together."""
        self.classes = nn.Linear(_maps(32, width) * self.patches, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images B C H W of the built size -> logits B 2 1 1, class 0 real, class 1 refined."""
        logits: Tensor = self.classes(self.features(channels_last(images)).flatten(1))
        return logits[:, :, None, None]


def _maps(paper: int, width: float) -> int:
    return max(1, round(paper * width))


def _features(channels: int, first_stride: int, width: float) -> nn.Sequential:
    """The list up to its last layer but one: B C H W -> B 32 h w."""
    a, b, c = (_maps(maps, width) for maps in (96, 64, 32))
    return nn.Sequential(
        nn.Conv2d(channels, a, kernel_size=7, stride=first_stride, padding=3),
        nn.ReLU(inplace=True),
        nn.Conv2d(a, b, kernel_size=5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        nn.Conv2d(b, c, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c, c, kernel_size=1),
        nn.ReLU(inplace=True),
    )


def hand_patch_grid(size: tuple[int, int], first_stride: int) -> tuple[int, int]:
    """Rows and columns of the local D's map for images of `size` (height, width): strides rounded up."""
    rows, columns = (-(-side // first_stride) for side in size)
    for _ in range(3):
        rows, columns = -(-rows // 2), -(-columns // 2)
    return rows, columns


def load_hand_refiner(run_or_weights: Path | str) -> HandRefiner:
    """The hand refiner of a run folder or of a weights file, on the CPU, ready to refine.

    Which convolutions are 7 x 7 is read off the weights. Raises FileNotFoundError or ValueError as `load_refiner` does.
    """
    path = Path(run_or_weights)
    weights, metadata = load_weights(path / REFINER if path.is_dir() else path, "refiner")
    config = from_json(metadata["config"])
    kernels = {value.shape[-1] for name, value in weights.items() if name.startswith("blocks") and value.ndim == 4}
    wide: WideFilters = "first" if kernels == {3} and config.refiner.kernel != 3 else "all"
    with torch.device("meta"):  # no initial weights, as they would draw from torch's global generator
        refiner = HandRefiner(config.refiner, config.data.size, wide)
    refiner.load_state_dict(weights, assign=True)
    return to_channels_last(refiner).eval().requires_grad_(False)
