"""Speed of the eye simulator on this machine: images/s into a store at 35x55, and of the renderer alone.

    python benchmarks/bench_simulator.py [--assets DIR] [--count 2000] [--device cpu] [--json]

`store_images_per_s` is of wall time and includes everything but reading the assets. The rates per core are of processor
time, which other processes disturb least; cores times them is what an idle machine does.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch

from simgan_core.simulators import EyeSimulator, load_assets, simulate_eyes
from simgan_core.simulators.simulate import RENDER_BATCH


def renderer_rate(simulator: EyeSimulator, batch: int, seconds: float) -> float:
    """Images/s of the fastest quarter of batches, by processor time of one thread, or by wall time on a GPU."""
    on_gpu = simulator.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.thread_time
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < 5:
        start = clock()
        simulator.render(simulator.sample(0, range(len(times) * batch, (len(times) + 1) * batch)))
        if on_gpu:
            torch.cuda.synchronize()
        times.append(clock() - start)
    times = sorted(times[1:])
    return round(batch / times[len(times) // 4], 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=None, help="UnityEyes2 folder; procedural assets without it")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    assets = load_assets(options.assets)
    threads = torch.get_num_threads()
    results: dict[str, object] = {"assets": assets.name, "device": options.device, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        begun, cpu = time.perf_counter(), time.process_time()
        out = Path(folder) / "eyes"
        simulate_eyes(options.count, out, assets=assets, device=options.device, progress=False)
        results["store_images_per_s"] = round(options.count / (time.perf_counter() - begun), 1)
        results["store_per_core_images_per_s"] = round(options.count / (time.process_time() - cpu), 1)
    torch.set_num_threads(1)
    simulator = EyeSimulator(assets, device=options.device)
    batch = RENDER_BATCH if simulator.device.type == "cpu" else 1024
    results["renderer_per_core_images_per_s"] = renderer_rate(simulator, batch, options.seconds)
    results["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:32s} {value}")


if __name__ == "__main__":
    main()
