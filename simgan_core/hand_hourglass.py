"""The stacked hourglass network that estimates hand joints (section 3.2, after Newell et al., ECCV 2016).

Shapes: B batch, J joints, H W image, h w heatmaps, F features. Images are floats in [-1, 1].
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from simgan_core.config_hand import HourglassConfig
from simgan_core.models import channels_last


class Bottleneck(nn.Module):
    """Newell's residual module: 1x1, 3x3, 1x1, each after batch norm and ReLU; a 1x1 skip where the width changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = max(1, outputs // 2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, inner, kernel_size=1),
            nn.BatchNorm2d(inner), nn.ReLU(inplace=True), nn.Conv2d(inner, inner, kernel_size=3, padding=1),
            nn.BatchNorm2d(inner), nn.ReLU(inplace=True), nn.Conv2d(inner, outputs, kernel_size=1),
        )  # fmt: skip
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """B inputs h w -> B outputs h w."""
        out: Tensor = self.skip(x) + self.body(x)
        return out


class Hourglass(nn.Module):
    """Down `depth` halvings and up again; every resolution keeps a branch of its own, added on the way up."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        self.branch = Bottleneck(features, features)
        self.down = Bottleneck(features, features)
        self.inner = Hourglass(features, depth - 1) if depth > 1 else Bottleneck(features, features)
        self.up = Bottleneck(features, features)

    def forward(self, x: Tensor) -> Tensor:
        """B F h w -> B F h w."""
        low = self.up(self.inner(self.down(F.max_pool2d(x, kernel_size=2))))
        out: Tensor = self.branch(x) + F.interpolate(low, size=x.shape[-2:], mode="nearest")
        return out


class StackedHourglass(nn.Module):
    """Stacks of hourglasses, each with heatmaps of its own that the next one sees (intermediate supervision).

    The paper: 'Stacked Hourglass Net' with two blocks and heatmaps of 64 x 64 for crops of 224 x 224. Newell's stem
    divides by four and its features are 256, which the paper does not repeat; so a crop is first resized to 256 x 256,
    an open point. With these sizes and 14 joints it has 6,562,588 parameters.
    """

    def __init__(self, config: HourglassConfig, joints: int = 14) -> None:
        super().__init__()
        self.config, self.joints = config, joints
        features = config.features
        self.stem = _stem(config)
        self.hourglasses = nn.ModuleList(Hourglass(features, config.depth) for _ in range(config.stacks))
        self.after = nn.ModuleList(_after(features) for _ in range(config.stacks))
        self.heads = nn.ModuleList(nn.Conv2d(features, joints, kernel_size=1) for _ in range(config.stacks))
        again = range(config.stacks - 1)
        self.features_back = nn.ModuleList(nn.Conv2d(features, features, kernel_size=1) for _ in again)
        self.heatmaps_back = nn.ModuleList(nn.Conv2d(joints, features, kernel_size=1) for _ in again)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images B 1 H W in [-1, 1] -> heatmaps B J h w of every stack; the last one is the estimate."""
        side = self.config.input
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        x, found = self.stem(channels_last(images)), []
        for stack, hourglass in enumerate(self.hourglasses):
            y = self.after[stack](hourglass(x))
            found.append(self.heads[stack](y))
            if stack + 1 < len(self.hourglasses):
                x = x + self.features_back[stack](y) + self.heatmaps_back[stack](found[-1])
        return found


def _stem(config: HourglassConfig) -> nn.Sequential:
    """Image -> F features at the heatmaps' resolution: Newell's, with as many halvings as `stem_stride` asks for."""
    features, half = config.features, max(1, config.features // 2)
    quarter = max(1, config.features // 4)
    stride, pooled = (2, config.stem_stride == 4) if config.stem_stride > 1 else (1, False)
    layers = [
        nn.Conv2d(1, quarter, kernel_size=7, stride=stride, padding=3), nn.BatchNorm2d(quarter),
        nn.ReLU(inplace=True), Bottleneck(quarter, half), *([nn.MaxPool2d(kernel_size=2)] if pooled else []),
        Bottleneck(half, half), Bottleneck(half, features),
    ]  # fmt: skip
    return nn.Sequential(*layers)


def _after(features: int) -> nn.Sequential:
    """Between an hourglass and its heatmaps."""
    return nn.Sequential(
        Bottleneck(features, features), nn.Conv2d(features, features, kernel_size=1),
        nn.BatchNorm2d(features), nn.ReLU(inplace=True),
    )  # fmt: skip
