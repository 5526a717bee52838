"""Training and use of the hand estimator (section 3.2): what refined depth hands are judged by.

Shapes: B batch, N data set, J joints, H W crop, h w heatmaps. Images are uint8 on disk and floats in [-1, 1] in the
network; joints are (u, v) in pixels of the crop, with the first pixel's corner at 0.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from simgan_core.allocator import keep_freed_memory
from simgan_core.checkpoints import load_weights, save_weights
from simgan_core.config_hand import HourglassConfig
from simgan_core.hand_heatmaps import draw_heatmaps, read_heatmaps
from simgan_core.hand_hourglass import StackedHourglass
from simgan_core.images import tensor_of, to_float
from simgan_core.models import to_channels_last
from simgan_core.precision import autocast, resolve_device
from simgan_core.schedule import warm_up_cosine

Images = NDArray[np.uint8]
Joints = NDArray[np.float32]
BACKGROUND = -1.0
"""Level of the background in the network: what a crop beyond the image's border shows."""
SETTINGS = {"stacks": int, "heatmap": int, "stem_stride": int, "features": int, "depth": int}


def heatmap_loss(found: list[Tensor], truth: Tensor) -> Tensor:
    """Squared error against the Gaussians, summed over cells and stacks, mean over batch and joints.

    A mean over cells would shrink the gradients with the number of cells, towards the epsilon of Adam.
    """
    errors = [(heatmaps.float() - truth).square().sum(dim=(-2, -1)).mean() for heatmaps in found]
    return torch.stack(errors).sum()


def train_hourglass(
    images: Images,
    uv: Joints,
    config: HourglassConfig,
    *,
    seed: int,
    augment: bool = True,
    progress: bool = True,
    device: str = "auto",
) -> StackedHourglass:
    """Train a stacked hourglass from scratch; order, weights and augmentation follow from `seed`.

    Args:
        images: depth crops uint8 [N, 1, H, W].
        uv: joints float32 [N, J, 2], pixels of the crop.
        config: network, steps, batch, rate and augmentation.
        seed: torch's global generator is left as it was.
        augment: rotate by up to 20 degrees and crop at random, as the paper does.
        progress: show a bar.
        device: 'auto', 'cpu', 'cuda', ...

    Raises:
        ValueError: images and joints do not fit each other, or a joint is not finite.
        RuntimeError: the loss is not finite.

    """
    _check(images, uv)
    keep_freed_memory()
    chosen = resolve_device(device)
    model = _new_model(config, uv.shape[1], seed).to(chosen)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: warm_up_cosine(step, config.steps))
    generator = torch.Generator(chosen).manual_seed(seed)
    rows = np.random.default_rng(seed)
    waiting = np.zeros(0, np.int64)
    for step in tqdm(range(config.steps), desc="hourglass", unit="step", disable=not progress):
        while len(waiting) < config.batch:
            waiting = np.concatenate([waiting, rows.permutation(len(images))])
        taken, waiting = waiting[: config.batch], waiting[config.batch :]
        batch = to_float(torch.from_numpy(images[taken]).to(chosen))
        joints = torch.from_numpy(uv[taken]).to(chosen, torch.float32)
        if augment:
            batch, joints = augment_hands(batch, joints, config, generator)
        truth = draw_heatmaps(_to_cells(joints, images.shape, config), (config.heatmap, config.heatmap), config.sigma)
        with autocast(chosen):
            found = model(batch)
        loss = heatmap_loss(found, truth)
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the hourglass' loss is {loss.item()} at step {step + 1}; lower its learning_rate.")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return model.eval()


def augment_hands(
    images: Tensor, uv: Tensor, config: HourglassConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each image turned, scaled and shifted at random about its middle, its joints [B, J, 2] (pixels) with it.

    The nearest pixel is taken: interpolation would invent depths between hand and background.
    """

    def drawn(reach: float) -> Tensor:
        return reach * (2 * torch.rand(len(images), generator=generator, device=images.device) - 1)

    height, width = images.shape[-2:]
    angle, scale = drawn(math.radians(config.rotate_deg)), 1 + drawn(config.crop)
    shift = torch.stack([drawn(config.crop), drawn(config.crop)], dim=-1)
    # In units of half the image, from the middle: new = scale * turn * old + shift.
    turn = scale[:, None, None] * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], dim=1
    )
    back = torch.linalg.inv(turn)
    theta = torch.cat([back, -(back @ shift[..., None])], dim=-1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Zero padding of levels above the background's leaves the background beyond the border.
    moved = F.grid_sample(images - BACKGROUND, grid, mode="nearest", align_corners=False) + BACKGROUND
    half = torch.tensor([width / 2, height / 2], device=uv.device)
    centred = (uv / half - 1) @ turn.transpose(1, 2) + shift[:, None]
    return moved, (centred + 1) * half


@torch.no_grad()
def predict_joints(model: StackedHourglass, images: Images, batch: int = 64) -> Joints:
    """Joints of depth crops uint8 [N, 1, H, W]: (u, v) in pixels of the crop, float32 [N, J, 2]."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(images), batch):
        part = tensor_of(images[start : start + batch])
        with autocast(device):
            heatmaps = model(to_float(part.to(device)))[-1]
        found.append(_to_pixels(read_heatmaps(heatmaps.float()), images.shape, model.config).cpu().numpy())
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, model.joints, 2), np.float32)


def save_hourglass(model: StackedHourglass, path: Path) -> None:
    """Write weights and settings atomically as safetensors."""
    settings = {name: str(getattr(model.config, name)) for name in SETTINGS}
    save_weights(model, path, {"kind": "hand estimator", "joints": str(model.joints)} | settings)


def load_hourglass(path: Path) -> StackedHourglass:
    """Read what `save_hourglass` wrote; frozen. Another file raises `ValueError`."""
    weights, details = load_weights(path, "hand estimator")
    config = HourglassConfig(**{name: kind(details[name]) for name, kind in SETTINGS.items()})
    with torch.device("meta"):  # no initial weights, as they would draw from torch's global generator
        model = StackedHourglass(config, int(details["joints"]))
    model.load_state_dict(weights, assign=True)
    return to_channels_last(model).eval().requires_grad_(False)


def _check(images: Images, uv: Joints) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images are {images.dtype} {images.shape}; expected depth crops uint8 [N, 1, H, W].")
    if len(images) == 0 or uv.ndim != 3 or uv.shape[0] != len(images) or uv.shape[2] != 2:
        raise ValueError(f"joints are {uv.shape} for {len(images)} images; expected [N, joints, 2], u and v each.")
    bad = np.flatnonzero(~np.isfinite(uv).all(axis=(1, 2)))
    if len(bad):
        raise ValueError(f"the joints of image {bad[0]} are not finite; expected pixels. Remove that image.")


def _to_cells(uv: Tensor, shape: tuple[int, ...], config: HourglassConfig) -> Tensor:
    """Pixels of the crop -> heatmap cells; corner to corner, so that no half pixel is lost."""
    return uv * torch.tensor([config.heatmap / shape[-1], config.heatmap / shape[-2]], device=uv.device)


def _to_pixels(cells: Tensor, shape: tuple[int, ...], config: HourglassConfig) -> Tensor:
    return cells * torch.tensor([shape[-1] / config.heatmap, shape[-2] / config.heatmap], device=cells.device)


def _new_model(config: HourglassConfig, joints: int, seed: int) -> StackedHourglass:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return to_channels_last(StackedHourglass(config, joints))
