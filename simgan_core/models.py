"""The refiner R and the discriminators D (section 3.1, 'Implementation details').

Shapes: B batch, C image channels, H W height and width, h w height and width of D's map of patches.
Images are floats in [-1, 1]. D's class 0 is real, class 1 is refined.
"""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simgan_core.config import Config, RefinerConfig, patch_grid

Network = TypeVar("Network", bound=nn.Module)

REAL, REFINED = 0, 1
"""The discriminator's classes: D(x) is the probability of class REFINED."""


def channels_last(images: Tensor) -> Tensor:
    """The same values laid out B H W C, also for one channel, of which torch's `contiguous` leaves the strides alone.

    With these it takes the first convolution's maps for the other layout, and converts them at every later use.
    """
    if images.shape[1] == 1:
        batch, _, height, width = images.shape
        return images.reshape(batch, height, width, 1).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


class SamePadConv(nn.Conv2d):
    """Convolution of stride 1 that keeps H and W; `padding_kind` says what lies beyond the border."""

    def __init__(self, inputs: int, outputs: int, kernel: int, padding_kind: Literal["zeros", "replicate"]) -> None:
        # Replicated borders are padded by hand: nn.Conv2d's own padding_mode takes a slower path.
        super().__init__(inputs, outputs, kernel, padding=kernel // 2 if padding_kind == "zeros" else 0)
        self.border = kernel // 2 if padding_kind == "replicate" else 0

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B outputs H W."""
        if self.border:
            # Autocast would pad in fp32 and convert there and back.
            with torch.autocast("cuda" if x.is_cuda else "cpu", enabled=False):
                x = F.pad(x, (self.border,) * 4, mode="replicate")
        return super().forward(x)


class PointwiseConv(nn.Conv2d):
    """1x1 convolution as a matrix product over pixels: for one output map several times faster on a CPU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """B C H W -> B outputs H W."""
        pixels = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
        return pixels.permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip (figure 6 of the paper)."""

    def __init__(self, width: int, kernel: int, padding_kind: Literal["zeros", "replicate"]) -> None:
        super().__init__()
        self.first = SamePadConv(width, width, kernel, padding_kind)
        self.second = SamePadConv(width, width, kernel, padding_kind)

    def forward(self, x: Tensor) -> Tensor:
        """B width H W -> the same."""
        # In place: at this size of network memory traffic costs as much as the convolutions.
        inner: Tensor = self.second(self.first(x).relu_())
        return inner.add_(x).relu_()


class Refiner(nn.Module):
    """R: convolution, residual blocks, 1x1 convolution; no stride and no pooling, so that labels stay in place.

    With the paper's 64 maps and 4 blocks it has 296,129 parameters. `size` (height, width) is that of the images it
    is trained on; the network itself takes any.
    """

    def __init__(self, config: RefinerConfig | None = None, size: tuple[int, int] = (35, 55)) -> None:
        super().__init__()
        self.size = size
        self.config = config = config or RefinerConfig()
        self.head = SamePadConv(config.channels, config.width, config.kernel, config.padding)
        self.blocks = nn.Sequential(
            *(ResidualBlock(config.width, config.kernel, config.padding) for _ in range(config.blocks))
        )
        self.tail = PointwiseConv(config.width, config.channels)

    def forward(self, synthetic: Tensor) -> Tensor:
        """Synthetic images B C H W in [-1, 1] -> refined images of the same shape."""
        refined: Tensor = self.tail(self.blocks(self.head(channels_last(synthetic)).relu_()))
        return torch.tanh(refined) if self.config.output == "tanh" else refined


class LocalDiscriminator(nn.Module):
    """D of section 2.2: fully convolutional, one decision per patch of 23 x 23 pixels.

    75,906 parameters for grey images; 'same' padding gives 9 x 14 patches for 35 x 55 pixels.
    """

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.features = _discriminator_features(channels)
        self.classes = nn.Conv2d(32, 2, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images B C H W -> logits B 2 h w, class 0 real, class 1 refined."""
        logits: Tensor = self.classes(self.features(channels_last(images)))
        return logits


class GlobalDiscriminator(nn.Module):
    """The paper's ablation: the same features, then one fully connected decision for the whole image."""

    def __init__(self, channels: int = 1, size: tuple[int, int] = (35, 55)) -> None:
        super().__init__()
        self.features = _discriminator_features(channels)
        self.size = size
        rows, columns = patch_grid(size)
        self.classes = nn.Linear(32 * rows * columns, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images B C H W of the built size, else ValueError -> logits B 2 1 1, class 0 real, class 1 refined."""
        if tuple(images.shape[-2:]) != tuple(self.size):
            found, built = (f"{height} x {width}" for height, width in (images.shape[-2:], self.size))
            raise ValueError(
                f"images of {found} found; expected {built}, for which this global discriminator was built. "
                "Resize them, or build it with their `size`"
            )
        logits: Tensor = self.classes(self.features(channels_last(images)).flatten(1))
        return logits[:, :, None, None]


def _discriminator_features(channels: int) -> nn.Sequential:
    """The paper's list up to its last layer but one: B C H W -> B 32 h w."""
    return nn.Sequential(
        nn.Conv2d(channels, 96, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(96, 64, kernel_size=3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(kernel_size=3, stride=1, padding=1),
        nn.Conv2d(64, 32, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, kernel_size=1),
        nn.ReLU(inplace=True),
    )


def build_networks(config: Config, seed: int) -> tuple[Refiner, LocalDiscriminator | GlobalDiscriminator]:
    """R and D of a configuration with weights drawn from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        refiner = Refiner(config.refiner, config.data.size)
        if config.discriminator.kind == "global":
            return refiner, GlobalDiscriminator(config.discriminator.channels, config.data.size)
        return refiner, LocalDiscriminator(config.discriminator.channels)


def to_channels_last(network: Network) -> Network:
    """The same network with weights laid out B H W C: convolutions are 1.3 to 2 times faster, on CPU and GPU alike."""
    for weights in network.parameters():
        if weights.ndim == 4:
            weights.data = weights.data.contiguous(memory_format=torch.channels_last)
    return network


def parameter_count(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
