"""Speed of the method on this machine: images/s of R, of a step of Algorithm 1 and of the gaze CNN.

    python benchmarks/bench_training.py [--profile cpu] [--batch 32] [--seconds 3] [--json]

Rates are of processor time on a CPU (other processes disturb it least) and of wall time on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch

from simgan_core import losses
from simgan_core.config import profile
from simgan_core.gaze_estimator import GazeCNN, euclidean_loss
from simgan_core.models import build_networks, to_channels_last
from simgan_core.precision import resolve_device, resolve_precision


def rate(work: Callable[[], None], images: int, seconds: float, device: torch.device) -> float:
    """Images/s of the fastest quarter of repetitions within `seconds`, after one to warm up."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 4:
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    times = sorted(times[1:])
    return round(images / times[len(times) // 4], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    config = profile(options.profile)
    batch = options.batch or config.training.batch
    device = resolve_device(options.device)
    results: dict[str, object] = {"profile": options.profile, "batch": batch, "device": str(device)}
    results |= {"threads": torch.get_num_threads(), "auto_precision": resolve_precision("auto", device)}
    images = torch.rand(batch, 1, *config.data.size, device=device) * 2 - 1

    for layout in ("nchw", "channels_last"):
        for precision in ("fp32", "bf16"):
            refiner, discriminator = (n.to(device) for n in build_networks(config, 0))
            if layout == "channels_last":
                to_channels_last(refiner), to_channels_last(discriminator)

            def update(r: torch.nn.Module = refiner, bf16: bool = precision == "bf16") -> None:
                r.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    refined = r(images)
                losses.self_regularisation(refined, images, losses.identity).backward()

            def step(
                r: torch.nn.Module = refiner, d: torch.nn.Module = discriminator, bf16: bool = precision == "bf16"
            ) -> None:
                """K_g = 2 updates of R through D, one of D."""
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    for _ in range(config.training.k_g):
                        r.zero_grad()
                        refined = r(images)
                        d.requires_grad_(False)
                        loss = losses.refiner_adversarial(d(refined))
                        (loss + losses.self_regularisation(refined, images, losses.identity)).backward()
                        d.requires_grad_(True)
                    d.zero_grad()
                    with torch.no_grad():
                        fresh = r(images[: batch // 2])
                    logits = d(torch.cat([images, fresh, fresh]))
                    losses.discriminator_loss(logits[batch:], logits[:batch]).backward()

            results[f"refiner_{precision}_{layout}"] = rate(update, batch, options.seconds, device)
            results[f"algorithm_one_{precision}_{layout}"] = rate(
                step, config.training.k_g * batch, options.seconds, device
            )

    model = to_channels_last(GazeCNN(config.gaze.width).to(device))
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    target = torch.zeros(batch, 3, device=device)

    def gaze() -> None:
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=results["auto_precision"] == "bf16"):
            predicted = model(images)
        euclidean_loss(predicted, target).backward()
        optimiser.step()

    results["gaze_cnn"] = rate(gaze, batch, options.seconds, device)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:36s} {value}")


if __name__ == "__main__":
    main()
