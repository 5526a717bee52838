"""Speed of this machine: eyes and hands rendered, refiner updates, steps of Algorithm 1, gaze CNN updates, in images/s.

Rates are of processor time on a CPU, which other processes disturb least, and of wall time on a GPU; of the repetitions
the fastest quarter's slowest counts. `store_images_per_s` alone is wall time of the whole way into a store.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from simgan_core import losses, provenance
from simgan_core.allocator import keep_freed_memory
from simgan_core.config import Config
from simgan_core.config_hand import HandConfig, hand_profile
from simgan_core.gaze_estimator import GazeCNN, euclidean_loss
from simgan_core.hand_training import build_hand_networks
from simgan_core.models import build_networks, to_channels_last
from simgan_core.precision import resolve_device, resolve_precision
from simgan_core.simulators.eye import EyeSimulator
from simgan_core.simulators.simulate import RENDER_BATCH, load_assets, one_thread, simulate_eyes

GPU_RENDER_BATCH = 1024
MATMUL_SIDE = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices whose product is what a device can do at best: large enough to fill it."""
Results = dict[str, object]


def rate(work: Callable[[], object], images: int, seconds: float, device: torch.device) -> float:
    """Images/s of `work`, which handles `images` of them; repeated for `seconds`, four times at least."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 4:
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    times = sorted(times[1:])  # the first one warms up
    return round(images / max(times[len(times) // 4], 1e-9), 1)


def bench_simulator(assets_folder: Path | None, *, count: int, seconds: float, device: str = "auto") -> Results:
    """Rates of the eye simulator at 35x55; `assets_folder` None means procedural eyes.

    `renderer_per_core` is of one thread.
    """
    chosen = resolve_device(device)
    assets = load_assets(assets_folder)
    with tempfile.TemporaryDirectory() as folder:
        begun, processor = time.perf_counter(), time.process_time()
        simulate_eyes(count, Path(folder) / "eyes", assets=assets, device=chosen, progress=False)
        wall, used = time.perf_counter() - begun, time.process_time() - processor
    batch = RENDER_BATCH if chosen.type == "cpu" else GPU_RENDER_BATCH
    simulator = EyeSimulator(assets, device=chosen)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = rate(lambda: simulator.render(simulator.sample(0, range(batch))), batch, seconds, chosen)
    finally:
        torch.set_num_threads(threads)
    return {
        "assets": assets.name,
        "store_images_per_s": round(count / wall, 1),
        "store_per_core_images_per_s": round(count / used, 1),
        "renderer_per_core_images_per_s": alone,
    }


def bench_hands(*, seconds: float, device: str = "auto") -> Results:
    """Rates of the hand simulator at the paper's size and at 96 pixels, and through the camera model; one thread."""
    from simgan_core.simulators import hand_simulate
    from simgan_core.simulators.hand import HandSimulator
    from simgan_core.simulators.kinect import KinectCamera, record

    chosen, assets = resolve_device(device), hand_simulate.load_hand_assets()
    batch = hand_simulate.RENDER_BATCH if chosen.type == "cpu" else GPU_RENDER_BATCH // 4
    results: Results = {}
    with one_thread():
        for side in (224, 96):
            simulator = HandSimulator(assets, size=(side, side), device=chosen)
            render = functools.partial(simulator.batch, 0, range(batch))
            results[f"hands_{side}_images_per_s"] = rate(render, batch, seconds, chosen)
        seen = functools.partial(record, simulator, KinectCamera(), 0, range(batch))
        results["hands_camera_96_images_per_s"] = rate(seen, batch, seconds, chosen)
    return results


def bench_hand_refiner(hand: HandConfig, *, seconds: float, device: str = "auto") -> Results:
    """Forward and backward pass of R for hands: images/s, and its share of the arithmetic of a large matrix product.

    Both are measured here, one after the other, in the same precision and on the same clock. A multiplication with its
    addition counts as two operations; `hand_refiner_gflop_per_image` is counted, not estimated.
    """
    chosen = resolve_device(device)
    precision = resolve_precision("auto", chosen)
    keep_freed_memory()
    side, batch = hand.side, hand.method.training.batch
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # as training does
        update = _hand_refiner_update(
            hand, torch.rand(batch, 1, side, side, device=chosen) * 2 - 1, precision == "bf16"
        )
        of_refiner = rate(update, batch, seconds, chosen)
        of_matmul = _matmul_gflop_per_s(precision == "bf16", seconds, chosen)
    gflop = _hand_refiner_gflop(hand)
    return {
        "hand_refiner_side": side,
        "hand_refiner_batch": batch,
        "hand_refiner_precision": precision,
        "hand_refiner_images_per_s": of_refiner,
        "hand_refiner_gflop_per_image": round(gflop, 4),
        "matmul_gflop_per_s": of_matmul,
        "hand_refiner_share_of_matmul": round(of_refiner * gflop / of_matmul, 4),
    }


def _hand_refiner_update(hand: HandConfig, images: torch.Tensor, bf16: bool) -> Callable[[], None]:
    refiner = to_channels_last(build_hand_networks(hand, hand.method, 0)[0].to(images.device))

    def update() -> None:
        refiner.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            refined = refiner(images)
        torch.autograd.backward(losses.self_regularisation(refined, images, losses.identity))

    return update


def _hand_refiner_gflop(hand: HandConfig) -> float:
    """Operations of forward and backward pass for one image, in thousand millions; nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    refiner = build_hand_networks(hand, hand.method, 0)[0].to("meta")
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(refiner(torch.empty(1, 1, hand.side, hand.side, device="meta")).sum())
    return float(counter.get_total_flops()) / 1e9


def _matmul_gflop_per_s(bf16: bool, seconds: float, device: torch.device) -> float:
    side = MATMUL_SIDE["cuda" if device.type == "cuda" else "cpu"]
    kind = torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    return round(rate(lambda: a @ b, round(2 * side**3 / 1e6), seconds, device) / 1e3, 1)


def bench_method(config: Config, *, seconds: float, device: str = "auto") -> Results:
    """Rates of R's update and of a step of Algorithm 1 by precision, and of the gaze CNN's update."""
    chosen = resolve_device(device)
    keep_freed_memory()
    results: Results = {"batch": config.training.batch, "auto_precision": resolve_precision("auto", chosen)}
    for precision in ("fp32", "bf16"):
        found = _bench_training(config, precision == "bf16", seconds, chosen)
        results |= {f"{name}_{precision}_images_per_s": value for name, value in found.items()}
    return results | {"gaze_cnn_images_per_s": _bench_gaze(config, seconds, chosen)}


def bench(config: Config, assets_folder: Path | None, *, count: int, seconds: float, device: str = "auto") -> Results:
    """Everything: what `simgan bench` prints, with the machine it was measured on."""
    return (
        {"profile": config.profile, "device": str(resolve_device(device)), "threads": torch.get_num_threads()}
        | bench_simulator(assets_folder, count=count, seconds=seconds, device=device)
        | bench_hands(seconds=seconds, device=device)
        | bench_hand_refiner(_hand_size(config, device), seconds=seconds, device=device)
        | bench_method(config, seconds=seconds, device=device)
        | {"commit": provenance.commit(), "hardware": provenance.device()}
    )


def _hand_size(config: Config, device: str) -> HandConfig:
    """The paper's size on a GPU; on a CPU, where one such batch takes minutes, that of profile cpu at most."""
    if resolve_device(device).type == "cuda":
        return hand_profile("gpu")
    return hand_profile("smoke" if config.profile == "smoke" else "cpu")


def _images(config: Config, count: int, device: torch.device) -> torch.Tensor:
    return torch.rand(count, config.data.channels, *config.data.size, device=device) * 2 - 1


def _bench_training(config: Config, bf16: bool, seconds: float, device: torch.device) -> dict[str, float]:
    batch = config.training.batch
    refiner, discriminator = (to_channels_last(network.to(device)) for network in build_networks(config, 0))
    images = _images(config, batch, device)

    def update() -> None:
        refiner.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            refined = refiner(images)
        torch.autograd.backward(losses.self_regularisation(refined, images, losses.identity))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for _ in range(config.training.k_g):
                _adversarial_update(refiner, discriminator, images)
            discriminator.zero_grad()
            with torch.no_grad():
                fresh = refiner(images[: batch // 2])
            logits = discriminator(torch.cat([images, fresh, fresh]))
            torch.autograd.backward(losses.discriminator_loss(logits[batch:], logits[:batch]))

    return {
        "refiner": rate(update, batch, seconds, device),
        "algorithm_one": rate(step, config.training.k_g * batch, seconds, device),
    }


def _adversarial_update(refiner: nn.Module, discriminator: nn.Module, images: torch.Tensor) -> None:
    refiner.zero_grad()
    refined = refiner(images)
    discriminator.requires_grad_(False)
    loss = losses.refiner_adversarial(discriminator(refined))
    torch.autograd.backward(loss + losses.self_regularisation(refined, images, losses.identity))
    discriminator.requires_grad_(True)


def _bench_gaze(config: Config, seconds: float, device: torch.device) -> float:
    model = to_channels_last(GazeCNN(config.gaze.width, config.data.channels, config.data.size).to(device))
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    images = _images(config, config.gaze.batch, device)
    target = torch.zeros(len(images), 3, device=device)
    bf16 = resolve_precision("auto", device) == "bf16"

    def update() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            predicted = model(images)
        torch.autograd.backward(euclidean_loss(predicted, target))
        optimiser.step()

    return rate(update, len(images), seconds, device)
