"""Algorithm 1: adversarial training of the refiner R, with the history of refined images (sections 2.1 to 2.3, 3.1).

Shapes: B batch, C H W images in [-1, 1], h w patches. `train` checks everything, then runs `AlgorithmOne`, over
Lightning Fabric: one device, or several when started by torchrun (the batch and the history are divided among them).
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from simgan_core import losses, provenance, run_state
from simgan_core.allocator import keep_freed_memory
from simgan_core.checkpoints import CHECKPOINT, REFINER, load_refiner, load_state, save_refiner, save_state
from simgan_core.config import Config, TrainingConfig, to_dict
from simgan_core.datasets.store import Batches, Store
from simgan_core.history import HistoryBuffer
from simgan_core.models import REAL, REFINED, Refiner, build_networks, parameter_count, to_channels_last
from simgan_core.precision import resolve_device, resolve_precision
from simgan_core.training_log import TrainingLog

__all__ = ["AlgorithmOne", "NonFiniteLossError", "load_refiner", "train"]

Losses = dict[str, Tensor]
Build = Callable[[Config, int], tuple[Refiner, nn.Module]]
"""R and D of a configuration and a seed. A D whose map is not the eyes' carries its number of `patches`."""
STRIP = 8
"""Images in a sample strip: the first of the synthetic store, always the same."""


class NonFiniteLossError(RuntimeError):
    """A loss became infinite or NaN; the message names the step and the components."""


def train(
    synthetic: Store,
    real: Store,
    out: Path,
    config: Config,
    *,
    seed: int = 0,
    resume: bool = False,
    device: str = "auto",
    progress: bool = True,
    build: Build = build_networks,
) -> Path:
    """Train a refiner by Algorithm 1 and leave a run folder; labels of either store are never read.

    Args:
        synthetic: images to refine.
        real: images that the refined ones shall look like.
        out: run folder: config.json, metrics.jsonl, tensorboard/, samples/, checkpoint.pt, refiner.safetensors
            (the average of R's weights, if that is on) and provenance.json.
        config: every hyperparameter.
        seed: of weights, batches and history.
        resume: continue the run in `out` from its last checkpoint, to the same numbers; start it if there is none.
        device: 'auto' leaves it to `config.training.device`.
        progress: show a bar with images/s and the time left.
        build: makes R and D; the default's are those for eyes.

    Returns:
        `out`.

    Raises:
        ValueError: images do not fit the configuration, or `out` holds another run.
        NonFiniteLossError: the training diverged.

    """
    run_state.check_stores(config, synthetic, real)
    run_state.check_folder(out, config, resume=resume)
    chosen = resolve_device(config.training.device if device == "auto" else device)
    fabric = _launch(config, chosen)
    run = AlgorithmOne(fabric, config, synthetic, real, out, seed, build)
    if resume and _has_checkpoint(fabric, out):
        run.load_state_dict(load_state(out / CHECKPOINT))
        run_state.check_not_beyond(out, run.iteration, run.ends["adversarial"])
    fabric.barrier()
    if fabric.is_global_zero:
        out.mkdir(parents=True, exist_ok=True)
        provenance.write_json(out / "config.json", to_dict(config))
    fabric.barrier()
    started, first = time.perf_counter(), run.iteration
    keep_freed_memory()
    # The fastest convolution is looked up once per shape; the setting is put back afterwards.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True), run.open_log(progress):
        run.run()
    if fabric.is_global_zero and run.iteration > first:
        details = run.describe() | {"seconds": round(time.perf_counter() - started, 1), "resumed_at": first}
        provenance.write_json(out / "provenance.json", details)
    fabric.barrier()
    return out


def _has_checkpoint(fabric: Fabric, out: Path) -> bool:
    """Whether there is one, for all processes alike: with folders of their own some would start anew and wait."""
    found = (out / CHECKPOINT).is_file()
    if fabric.broadcast(found) != found:
        raise ValueError(
            f"{out} {'holds' if found else 'lacks'} a checkpoint here, unlike on the first node; expected one folder "
            "that all nodes see. Name a place on a shared file system."
        )
    return found


def _launch(config: Config, device: torch.device) -> Fabric:
    """Fabric on one device, or on all processes that torchrun started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.training.batch % (2 * world):
        raise ValueError(
            f"training.batch {config.training.batch} found; expected a multiple of twice the {world} processes. Raise "
            "training.batch, or start fewer processes."
        )
    precision = resolve_precision(config.training.precision, device)
    devices: Any = per_node if device.type == "cpu" or world > 1 else [device.index or 0]
    fabric = Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=devices,
        num_nodes=world // per_node,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


class AlgorithmOne:
    """R, D and all that changes while they train.

    `iteration` counts the steps of all three phases: R alone, D alone, then T adversarial steps.
    """

    def __init__(
        self, fabric: Fabric, config: Config, synthetic: Store, real: Store, out: Path, seed: int,
        build: Build = build_networks,
    ) -> None:  # fmt: skip
        t = config.training
        self.fabric, self.config, self.out, self.seed = fabric, config, out, seed
        self.stores = {"synthetic": synthetic, "real": real}
        self.batch = t.batch // fabric.world_size
        ends = np.cumsum([t.pretrain_refiner, t.pretrain_discriminator, t.steps]).tolist()
        self.ends: dict[str, int] = dict(zip(run_state.PHASES, ends, strict=True))
        self.iteration = 0
        self.saved = 0

        refiner, discriminator = build(config, seed)
        to_channels_last(refiner), to_channels_last(discriminator)
        self.averaged = copy.deepcopy(refiner).to(fabric.device)
        self.refiner, self.refiner_optimiser = fabric.setup(refiner, _optimiser(refiner, t))
        self.discriminator, self.discriminator_optimiser = fabric.setup(discriminator, _optimiser(discriminator, t))
        self.psi = run_state.build_psi(config.loss, fabric.device)

        streams = np.random.SeedSequence([seed, fabric.global_rank]).generate_state(3).tolist()
        self.synthetic = Batches(synthetic, self.batch, seed=streams[0], device=fabric.device)
        self.real = Batches(real, self.batch, seed=streams[1], device=fabric.device)
        self.history = HistoryBuffer(t.history_images // fabric.world_size, seed=streams[2], device=fabric.device)
        self.window = run_state.MetricWindow()

    def run(self) -> None:
        """Algorithm 1, with its lines quoted, after pretraining (section 3.1); continues where `iteration` stands."""
        t = self.config.training
        # "we first train the refiner with just self-regularization loss, then the discriminator"
        for phase in self.remaining("pretrain_refiner"):
            self.finish(phase, self.update_refiner(adversarial=False))
        for phase in self.remaining("pretrain_discriminator"):
            self.finish(phase, self.update_discriminator())
        for phase in self.remaining("adversarial"):  # for t = 1, ..., T do
            seen: Losses = {}
            for _ in range(t.k_g):  # for k = 1, ..., K_g do
                seen |= self.update_refiner()
            for _ in range(t.k_d):  # for k = 1, ..., K_d do
                seen |= self.update_discriminator()
            self.average_weights()
            self.finish(phase, seen)
        if self.iteration > self.saved:
            self.save()

    def update_refiner(self, *, adversarial: bool = True) -> Losses:
        """One update of R on L_R (equation 4), or on its self-regularisation alone."""
        synthetic = next(self.synthetic)  # 1. Sample a mini-batch of synthetic images x_i
        refined = self.refiner(synthetic)
        # Without self-regularisation (lambda = 0) R is pretrained to copy its input all the same: else it would enter
        # the game with random weights, and what lambda = 0 shows would be a dead network's.
        weight = self.config.loss.lambda_sum or float(not adversarial)
        regularisation = weight * losses.self_regularisation(refined, synthetic, self.psi)
        loss, parts = regularisation, {"loss_regularisation": regularisation}
        if adversarial:
            # D only judges here: its weights take no gradient. Its plain module is called, as DDP counts on one
            # backward pass through D for each of its own forward passes.
            with _frozen(self.discriminator.module), self.fabric.autocast():
                logits = self.discriminator.module(refined)
            parts["loss_adversarial"] = losses.refiner_adversarial(logits) * self.patch_weight(logits)
            loss = loss + parts["loss_adversarial"]
        # 2. Update theta by taking a SGD step on mini-batch loss L_R(theta)
        self.refiner_optimiser.zero_grad()
        self.fabric.backward(loss)
        self.refiner_optimiser.step()
        return {"loss_refiner": loss} | parts | _refinement(synthetic, refined.detach())

    def update_discriminator(self) -> Losses:
        """One update of D on L_D (equation 2): half real, a quarter fresh, a quarter history."""
        # 1. Sample a mini-batch of synthetic images x_i, and real images y_j
        synthetic = next(self.synthetic)[: self.history.fresh_needed(self.batch)]
        real = next(self.real)
        # 2. Compute R(x_i) with current theta. The bare module knows of no precision, and several processes' wrapper
        # would wait for a backward pass.
        with torch.no_grad(), self.fabric.autocast():
            fresh = self.refiner.module(synthetic)
        refined = self.history.mix(fresh.float(), self.batch)
        logits = self.discriminator(torch.cat([real, refined]))
        logits_real, logits_refined = logits[: self.batch], logits[self.batch :]
        loss = losses.discriminator_loss(logits_refined, logits_real)
        # 3. Update phi by taking a SGD step on mini-batch loss L_D(phi)
        self.discriminator_optimiser.zero_grad()
        self.fabric.backward(loss)
        self.discriminator_optimiser.step()
        return {"loss_discriminator": loss} | _accuracies(logits_real, logits_refined, len(fresh))

    def patch_weight(self, logits: Tensor) -> float:
        """1 for the local D; the global D's one decision counts as many as the local one's patches together.

        Without it the ablation would change lambda's meaning along with D.
        """
        patches = getattr(self.discriminator.module, "patches", run_state.patches(self.config.data.size))
        return float(patches) / (logits.shape[-2] * logits.shape[-1])

    @torch.no_grad()
    def average_weights(self) -> None:
        """Exponential average of R's weights; shorter at first, so that it does not stay with the pretrained ones."""
        step = self.iteration - self.ends["pretrain_discriminator"]
        decay = min(self.config.training.average_decay, (1 + step) / (10 + step))
        if self.config.training.average_decay == 0:
            decay = 0.0
        for average, current in zip(self.averaged.parameters(), self.refiner.module.parameters(), strict=True):
            average.lerp_(current, 1 - decay)

    def remaining(self, phase: str) -> Iterator[str]:
        """The phase's name once for each of its iterations that are still to be made."""
        while self.iteration < self.ends[phase]:
            yield phase

    def finish(self, phase: str, seen: Losses) -> None:
        """Close one iteration: stop if a loss is not finite, write the log, samples and checkpoint when due."""
        t = self.config.training
        values = self.fabric.all_reduce(torch.stack([value.detach().float() for value in seen.values()]))
        found = dict(zip(seen, cast(Tensor, values).tolist(), strict=True))
        self.iteration += 1
        run_state.check_finite(found, phase, self.iteration - self.starts(phase), NonFiniteLossError)
        self.window.add(found)
        self.log.advance(t.batch * (t.k_g if phase == "adversarial" else phase == "pretrain_refiner"))
        last = self.iteration == self.ends[phase]
        if self.iteration % t.log_every == 0 or last:
            self.log.record(self.iteration, phase, self.window.means())
        if phase != "adversarial":
            self.averaged.load_state_dict(self.refiner.module.state_dict())
        if self.iteration % t.sample_every == 0 or last:
            self.write_samples()
        if self.iteration % t.checkpoint_every == 0:
            self.save()

    def starts(self, phase: str) -> int:
        """Iterations before the first of `phase`."""
        before = run_state.PHASES.index(phase) - 1
        return self.ends[run_state.PHASES[before]] if before >= 0 else 0

    @contextmanager
    def open_log(self, progress: bool) -> Iterator[None]:
        """The log of this run, open for its duration."""
        total = self.ends["adversarial"]
        writes = self.fabric.is_global_zero
        with TrainingLog(self.out, total=total, done=self.iteration, progress=progress, writes=writes) as self.log:
            yield

    @torch.no_grad()
    def write_samples(self) -> None:
        """Strip of the first synthetic images and what the exported R makes of them."""
        if self.fabric.is_global_zero:
            images = run_state.first_images(self.stores["synthetic"], STRIP, self.fabric.device)
            self.log.samples(self.iteration, images, self.averaged(images))

    def save(self) -> None:
        """Write checkpoint and weights."""
        state = self.state_dict()
        if self.fabric.is_global_zero:
            save_refiner(self.averaged, self.out / REFINER, self.config, seed=self.seed, step=self.iteration)
            save_state(state, self.out / CHECKPOINT)
        self.saved = self.iteration
        self.fabric.barrier()

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on, of all processes."""
        return {
            "iteration": self.iteration,
            "seed": self.seed,
            "stores": {name: store.checksum for name, store in self.stores.items()},
            "refiner": self.refiner.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "discriminator": self.discriminator.module.state_dict(),
            "refiner_optimiser": self.refiner_optimiser.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
            "window": self.window.state_dict(),
            "processes": run_state.gather(self.fabric, {name: getattr(self, name).state_dict() for name in self.local}),
        }

    local = ("synthetic", "real", "history")
    """State that each process has for itself."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; other data, seed or number of processes raise `ValueError`."""
        run_state.check_state(state, self.seed, self.stores, self.fabric.world_size)
        self.iteration = self.saved = state["iteration"]
        self.refiner.module.load_state_dict(state["refiner"])
        self.averaged.load_state_dict(state["averaged"])
        self.discriminator.module.load_state_dict(state["discriminator"])
        self.refiner_optimiser.load_state_dict(state["refiner_optimiser"])
        self.discriminator_optimiser.load_state_dict(state["discriminator_optimiser"])
        self.window.load_state_dict(state["window"])
        for name in self.local:
            getattr(self, name).load_state_dict(state["processes"][self.fabric.global_rank][name])

    def describe(self) -> dict[str, object]:
        """Provenance of the run."""
        return {
            "seed": self.seed,
            "iterations": self.iteration,
            "device": str(self.fabric.device),
            "processes": self.fabric.world_size,
            "precision": resolve_precision(self.config.training.precision, self.fabric.device),
            "threads": torch.get_num_threads(),
            "parameters": {n: parameter_count(getattr(self, n)) for n in ("refiner", "discriminator")},
            "images": {name: len(store) for name, store in self.stores.items()},
            "stores": {name: store.checksum for name, store in self.stores.items()},
            "commit": provenance.commit(),
            "packages": provenance.package_versions(),
            "hardware": provenance.device(),
        }


def _optimiser(network: nn.Module, t: TrainingConfig) -> torch.optim.Optimizer:
    if t.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), lr=t.learning_rate, momentum=t.momentum)
    return torch.optim.Adam(network.parameters(), lr=t.learning_rate, betas=(t.beta1, 0.999))


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


@torch.no_grad()
def _refinement(synthetic: Tensor, refined: Tensor) -> Losses:
    """Mean |R(x) - x| per pixel in [-1, 1] units, and the refined images' spread over the batch in that of x."""
    spread = refined.float().std(dim=0).mean() / synthetic.std(dim=0).mean().clamp(min=1e-6)
    return {"refined_minus_input": (refined - synthetic).abs().mean(), "refined_spread": spread}


@torch.no_grad()
def _accuracies(logits_real: Tensor, logits_refined: Tensor, fresh: int) -> Losses:
    """Share of patches that D classifies rightly: real, fresh, and history (absent while there is none)."""
    right = (logits_refined.argmax(dim=1) == REFINED).float()
    found = {
        "accuracy_real": (logits_real.argmax(dim=1) == REAL).float().mean(),
        "accuracy_fresh": right[:fresh].mean(),
    }
    return found | ({"accuracy_history": right[fresh:].mean()} if len(right) > fresh else {})
