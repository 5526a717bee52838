"""The gaze CNN (section 3.1, 'Appearance-based gaze estimation'): what refined images are judged by.

Shapes: B batch, N data set, C H W images (uint8 on disk, [-1, 1] in the net). Gaze is a unit vector in the net and
(pitch, yaw) in radians outside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from simgan_core.allocator import keep_freed_memory
from simgan_core.augmentation import augment as augment_images
from simgan_core.checkpoints import load_weights, save_weights
from simgan_core.config import GazeConfig
from simgan_core.datasets.store import Store
from simgan_core.gaze import gaze_vector, pitch_yaw
from simgan_core.images import tensor_of, to_float
from simgan_core.models import channels_last, to_channels_last
from simgan_core.precision import autocast, resolve_device
from simgan_core.schedule import warm_up_cosine

Images = NDArray[np.uint8]
Angles = NDArray[np.float32]
_NEARLY = 0.07
"""Factor on the last layer's first weights: its answers start within some hundredths of the labels' mean."""


class GazeCNN(nn.Module):
    """The paper's list: 35x55, conv3x3 32, 32, 64, maxpool3x3/2, conv3x3 80, 192, maxpool2x2/2, FC9600, FC1000, FC3.

    The list does not give the padding. Unpadded convolutions flatten to 5 * 10 * 192 = 9,600 values exactly, so that
    'FC9600' is read as that map and not as a layer of its own, which would have 92 million weights.

    Args:
        width: factor on every layer's maps; 1 is the paper's, with 9.8 million parameters.
        channels: 1 grey, 3 colour.
        size: (height, width) of the images.

    """

    def __init__(self, width: float = 1.0, channels: int = 1, size: tuple[int, int] = (35, 55)) -> None:
        super().__init__()
        self.width, self.channels, self.size = width, channels, size
        a, b, c, d, e, hidden = (max(1, round(width * maps)) for maps in (32, 32, 64, 80, 192, 1000))
        self.early = nn.Sequential(_conv(channels, a), _conv(a, b), _conv(b, c))
        self.late = nn.Sequential(
            nn.MaxPool2d(kernel_size=3, stride=2), _conv(c, d), _conv(d, e), nn.MaxPool2d(kernel_size=2, stride=2)
        )
        rows, columns = (((side - 6 - 3) // 2 + 1 - 4) // 2 for side in size)
        if min(rows, columns) < 1:
            raise ValueError(f"images of {size[0]} x {size[1]} are too small for the gaze CNN; expected 35 x 55 or so.")
        self.flattened = rows * columns * e
        assert (width, size) != (1.0, (35, 55)) or self.flattened == 9600
        self.head = nn.Sequential(nn.Linear(self.flattened, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Images B C H W in [-1, 1] -> gaze vectors B 3, of about unit length."""
        *wide, last = self.head
        hidden = self.late(self.early(channels_last(images))).flatten(1)
        for layer in wide:
            hidden = layer(hidden)
        with torch.autocast(hidden.device.type, enabled=False):  # eight bits of a vector are half a degree
            gaze: Tensor = last(hidden.float())
        return gaze

    def early_features(self, images: Tensor) -> Tensor:
        """Maps after the first three convolutions, B 64 H-6 W-6: a learned psi for the self-regularisation."""
        maps: Tensor = self.early(channels_last(images))
        return maps


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3), nn.ReLU(inplace=True))


def euclidean_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Half the squared distance of gaze vectors B 3, mean over the batch."""
    return (predicted.float() - truth).square().sum() / (2 * len(truth))


def train_gaze_cnn(
    images: Images | Store,
    pitch_yaw_rad: Angles,
    config: GazeConfig,
    *,
    seed: int,
    augment: bool = False,
    progress: bool = True,
    device: str = "auto",
) -> GazeCNN:
    """Train a gaze CNN from scratch; every image once per epoch, in an order that follows from `seed`.

    Args:
        images: uint8 [N, C, H, W], or a store.
        pitch_yaw_rad: labels float32 [N, 2], radians.
        config: steps, batch, rate and augmentation.
        seed: of weights, order and augmentation; torch's global generator is left as it was.
        augment: vary light, blur, noise and framing of the training images.
        progress: show a bar.
        device: 'auto', 'cpu', 'cuda', ...

    Raises:
        ValueError: images and labels do not fit each other, or a label is not finite.
        RuntimeError: the loss is not finite.

    """
    array = images.images() if isinstance(images, Store) else images
    _check(array, pitch_yaw_rad)
    keep_freed_memory()
    chosen = resolve_device(device)
    vectors = gaze_vector(torch.from_numpy(np.array(pitch_yaw_rad, np.float32)))
    model = _new_model(config, array, vectors.mean(dim=0), seed).to(chosen)
    optimiser = _optimiser(model, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, config))
    truth = vectors.to(chosen)
    # The whole set lives on a GPU: 2.3 GB for the paper's 1.2 million images.
    resident = tensor_of(array).to(chosen) if chosen.type == "cuda" else None
    generator = torch.Generator(chosen).manual_seed(seed)
    rows_of_batch = _orders(len(array), config.batch, seed)
    for step in tqdm(range(config.steps), desc="gaze CNN", unit="step", disable=not progress):
        rows = next(rows_of_batch)
        index = torch.from_numpy(rows).to(chosen)
        batch = to_float(resident[index] if resident is not None else torch.from_numpy(array[rows]).to(chosen))
        if augment:
            batch = augment_images(batch, config, generator)
        with autocast(chosen):
            predicted = model(batch)
        loss = euclidean_loss(predicted, truth[index])
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the gaze CNN's loss is {loss.item()} at step {step + 1}; lower gaze.learning_rate.")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: GazeCNN, images: Images | Store, batch: int = 256) -> Angles:
    """Gaze of uint8 images [N, C, H, W] or of a store: pitch and yaw, float32 [N, 2], radians.

    Raises ValueError for images of another size or number of channels than the network was trained on.
    """
    shape = (images.channels, *images.size) if isinstance(images, Store) else tuple(images.shape[1:])
    if shape != (model.channels, *model.size):
        raise ValueError(
            f"images {shape} found; {(model.channels, *model.size)} expected, channels, height and width "
            "that the gaze CNN was trained on. Resize or convert them, or train another one."
        )
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        array = images.images(rows) if isinstance(images, Store) else images[rows]
        with autocast(device):
            vectors = model(to_float(tensor_of(array).to(device)))
        found.append(pitch_yaw(vectors.float()).cpu().numpy())
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, 2), np.float32)


def save_gaze_cnn(model: GazeCNN, path: Path) -> None:
    """Write weights and settings atomically as safetensors."""
    height, width = model.size
    details = {"width": str(model.width), "channels": str(model.channels), "size": f"{height}x{width}"}
    save_weights(model, path, {"kind": "gaze CNN"} | details)


def load_gaze_cnn(path: Path | str) -> GazeCNN:
    """Read what `save_gaze_cnn` wrote; frozen. Another file raises `ValueError`."""
    weights, details = load_weights(Path(path), "gaze CNN")
    height, width = map(int, details["size"].split("x"))
    with torch.device("meta"):  # no initial weights, as they would draw from torch's global generator
        model = GazeCNN(float(details["width"]), int(details["channels"]), (height, width))
    model.load_state_dict(weights, assign=True)
    return to_channels_last(model).eval().requires_grad_(False)


def _check(images: Images, labels: Angles) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 [N, C, H, W].")
    if len(images) == 0 or labels.shape != (len(images), 2):
        raise ValueError(f"labels are {labels.shape} for {len(images)} images; expected one (pitch, yaw) each.")
    if not np.isfinite(labels).all():
        row = int(np.flatnonzero(~np.isfinite(labels).all(axis=1))[0])
        raise ValueError(f"label {row} is {labels[row]}; expected finite pitch and yaw. Remove that image.")


def _new_model(config: GazeConfig, images: Images, mean_vector: Tensor, seed: int) -> GazeCNN:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = GazeCNN(config.width, images.shape[1], (images.shape[2], images.shape[3]))
        if config.initial == "he":
            _start_from_mean(model, mean_vector)
    return to_channels_last(model)


@torch.no_grad()
def _start_from_mean(model: GazeCNN, mean_vector: Tensor) -> None:
    """Weights after He et al. 2015, and a last layer that answers nearly the mean of the labels.

    torch's own weights shrink every layer's maps, and from an answer of 0 the first thousand steps go into the part
    of the gaze vector that all images share.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            cast(Tensor, layer.bias).zero_()
    last = cast(nn.Linear, model.head[-1])
    last.weight.mul_(_NEARLY)
    last.bias.copy_(mean_vector)


def _optimiser(model: GazeCNN, config: GazeConfig) -> torch.optim.Optimizer:
    # A layer of fewer maps sums fewer changes, so that a narrower network learns as fast only with a higher rate.
    rate = config.learning_rate / math.sqrt(config.width)
    if config.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    # Fused: the wide first fully connected layer makes the update as long as a convolution otherwise.
    return torch.optim.Adam(model.parameters(), lr=rate, fused=True)


def _rate(step: int, config: GazeConfig) -> float:
    """Factor on the learning rate at a step, counted from 0."""
    return 1.0 if config.schedule == "constant" else warm_up_cosine(step, config.steps)


def _orders(count: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of endless batches, each row once per epoch; batches run on over the end of an epoch."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:batch]
        waiting = waiting[batch:]
