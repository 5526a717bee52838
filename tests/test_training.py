"""Algorithm 1: what is updated by what, the composition of D's batch, exact resume, golden numbers, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from toy_eyes import toy_store

from simgan_core import config as c
from simgan_core import profiles, training
from simgan_core.checkpoints import CHECKPOINT, load_refiner, load_state
from simgan_core.config import with_overrides
from simgan_core.datasets.store import Store
from simgan_core.history import HistoryBuffer
from simgan_core.images import to_float
from simgan_core.precision import resolve_device, resolve_precision
from simgan_core.processor import cpu_has_bf16, cpu_model
from simgan_core.training_log import read_metrics, warning_signs

GOLDEN = Path(__file__).parent / "golden" / "algorithm_one.json"
GOLDEN_TOLERANCE = 1e-4
"""Relative. A step more or less moves these numbers by 1e-2."""
PLAIN = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
"""Instructions that every processor has: rounding differs between them by 1e-7 and grows to 3e-4 in twenty steps."""


def small(**overrides: object) -> c.Config:
    """A configuration of a second: names with double underscores, e.g. training__steps=3."""
    defaults = {
        "refiner.width": 4,
        "refiner.blocks": 1,
        "training.batch": 8,
        "training.history_images": 16,
        "training.pretrain_refiner": 2,
        "training.pretrain_discriminator": 2,
        "training.steps": 4,
        "training.log_every": 1,
        "training.precision": "fp32",
        "training.device": "cpu",
    }
    return c.with_overrides(profiles.smoke(), defaults | {k.replace("__", "."): v for k, v in overrides.items()})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("stores")
    return toy_store(folder / "synthetic", 60, 0), toy_store(folder / "real", 50, 1, real=True)


@pytest.fixture
def run(stores: tuple[Store, Store], tmp_path: Path) -> training.AlgorithmOne:
    fabric = Fabric(accelerator="cpu", devices=1)
    return training.AlgorithmOne(fabric, small(), *stores, tmp_path, seed=0)


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def numbers(out: Path) -> list[dict]:
    """Metrics without wall time."""
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read_metrics(out)]


# --- what is updated by what


def test_each_update_changes_its_own_network_only(run: training.AlgorithmOne) -> None:
    r, d = weights(run.refiner), weights(run.discriminator)
    run.update_refiner()
    assert same(d, weights(run.discriminator)) and not same(r, weights(run.refiner))
    r = weights(run.refiner)
    run.update_discriminator()
    assert same(r, weights(run.refiner)) and not same(d, weights(run.discriminator))
    assert all(p.requires_grad for p in run.discriminator.parameters())


def test_refiners_adversarial_loss_reaches_its_weights(run: training.AlgorithmOne) -> None:
    """With lambda = 0 only D's opinion trains R; elsewhere R never got it, or D took the gradient too."""
    run.config = c.with_overrides(run.config, {"loss.lambda_sum": 0.0})
    before = weights(run.refiner)
    run.update_refiner()
    assert not same(before, weights(run.refiner))
    assert all(p.grad is None for p in run.discriminator.parameters())


def test_discriminators_batch_is_half_real_quarter_fresh_quarter_history(
    run: training.AlgorithmOne, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    run.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    made: list[torch.Tensor] = []
    run.refiner.module.register_forward_hook(lambda *call: made.append(call[2].detach().clone()))
    for _ in range(4):
        run.update_discriminator()
    real_images = to_float(torch.from_numpy(run.stores["real"].images().copy()))
    for update, batch in enumerate(seen):
        assert len(batch) == 16
        assert all(torch.isclose(real_images, image, atol=1e-6).flatten(1).all(dim=1).any() for image in batch[:8])
        fresh, history = made[update], batch[8 + len(made[update]) :]
        assert len(fresh) == (8 if update == 0 else 4)
        assert torch.equal(batch[8 : 8 + len(fresh)], fresh)
        older = torch.cat(made[:update]) if update else torch.empty(0)
        assert all((older == image).flatten(1).all(dim=1).any() for image in history)
        assert len(history) == (0 if update == 0 else 4)


def test_a_history_that_stays_empty_or_frozen_is_noticed(
    run: training.AlgorithmOne, monkeypatch: pytest.MonkeyPatch
) -> None:
    def oldest_and_newest() -> tuple[int, bool]:
        for _ in range(3):
            run.update_discriminator()
        before = run.history.images.clone()
        for _ in range(6):
            run.update_discriminator()
        return len(run.history), len(before) > 0 and not torch.equal(before, run.history.images[: len(before)])

    assert oldest_and_newest() == (16, True)
    monkeypatch.setattr(HistoryBuffer, "replace", lambda self, fresh: None)
    assert not oldest_and_newest()[1]


@pytest.mark.parametrize(("k_g", "k_d"), [(2, 1), (3, 2)])
def test_k_g_and_k_d_count_updates(stores: tuple, tmp_path: Path, k_g: int, k_d: int) -> None:
    config = small(training__k_g=k_g, training__k_d=k_d, training__steps=3)
    out = training.train(*stores, tmp_path / "run", config, progress=False)
    state = load_state(out / CHECKPOINT)
    steps = {n: next(iter(state[f"{n}_optimiser"]["state"].values()))["step"] for n in ("refiner", "discriminator")}
    assert steps == {"refiner": 2 + 3 * k_g, "discriminator": 2 + 3 * k_d}


def test_average_of_weights(run: training.AlgorithmOne) -> None:
    run.iteration = run.ends["pretrain_discriminator"] + 10_000  # far beyond the short averages of the start
    before = weights(run.averaged)
    run.update_refiner()
    run.average_weights()
    for old, now, current in zip(before, weights(run.averaged), weights(run.refiner), strict=True):
        torch.testing.assert_close(now, 0.99 * old + 0.01 * current)


def test_without_averaging_the_last_iterate_is_exported(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "run", small(training__average_decay=0.0), progress=False)
    state = load_state(out / CHECKPOINT)
    exported = load_refiner(out).state_dict()
    assert all(torch.equal(exported[name], state["refiner"][name]) for name in exported)


# --- the run as a whole


def test_run_folder(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "deep" / "run", small(training__sample_every=3), progress=False)
    expected = "checkpoint.pt config.json metrics.jsonl provenance.json refiner.safetensors samples tensorboard"
    assert sorted(p.name for p in out.iterdir()) == expected.split()
    assert c.from_json((out / "config.json").read_text()) == small(training__sample_every=3)
    assert sorted(p.stem for p in (out / "samples").iterdir()) == ["000002", "000003", "000004", "000006", "000008"]
    assert list((out / "tensorboard").iterdir())
    details = json.loads((out / "provenance.json").read_text())
    assert details["iterations"] == 8 and details["images"] == {"synthetic": 60, "real": 50}
    lines = read_metrics(out)
    assert [line["phase"] for line in lines] == ["pretrain_refiner"] * 2 + ["pretrain_discriminator"] * 2 + [
        "adversarial"
    ] * 4
    assert {"loss_refiner", "loss_adversarial", "loss_regularisation", "loss_discriminator", "accuracy_real"} <= set(
        lines[-1]
    )
    assert {"accuracy_fresh", "accuracy_history", "refined_minus_input", "images_per_second"} <= set(lines[-1])
    assert "loss_adversarial" not in lines[0]


def test_nothing_global_is_touched(stores: tuple, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    training.train(*stores, tmp_path / "run", small(), progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_seed_same_numbers_other_seed_others(stores: tuple, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        training.train(*stores, tmp_path / name, small(), seed=seed, progress=False)
    assert numbers(tmp_path / "a") == numbers(tmp_path / "b") != numbers(tmp_path / "c")


@pytest.mark.parametrize("stop", [1, 4])
def test_resume_gives_the_same_numbers(stores: tuple, tmp_path: Path, stop: int) -> None:
    whole = training.train(*stores, tmp_path / "whole", small(training__steps=6), progress=False)
    part = training.train(*stores, tmp_path / "part", small(training__steps=stop), progress=False)
    training.train(*stores, part, small(training__steps=6), resume=True, progress=False)
    assert numbers(whole) == numbers(part)
    a, b = (load_refiner(folder).state_dict() for folder in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)
    a, b = (load_state(folder / CHECKPOINT) for folder in (whole, part))
    assert torch.equal(a["processes"][0]["history"]["images"], b["processes"][0]["history"]["images"])


@pytest.mark.parametrize("kill_at", [1, 3, 7])
def test_a_killed_run_resumes_from_its_last_checkpoint(
    stores: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    config = small(training__checkpoint_every=2, training__log_every=3, training__sample_every=2)
    whole = training.train(*stores, tmp_path / "whole", config, progress=False)
    finish = training.AlgorithmOne.finish

    def killed(self: training.AlgorithmOne, phase: str, seen: dict) -> None:
        finish(self, phase, seen)
        if self.iteration == kill_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.AlgorithmOne, "finish", killed)
        training.train(*stores, tmp_path / "part", config, progress=False)
    training.train(*stores, tmp_path / "part", config, resume=True, progress=False)
    assert numbers(whole) == numbers(tmp_path / "part")
    assert not list((tmp_path / "part").glob("*.partial"))


def test_resuming_a_finished_run_changes_nothing(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "run", small(), progress=False)
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != CHECKPOINT}
    training.train(*stores, out, small(), resume=True, progress=False)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_golden_trace() -> None:
    """Twenty steps on the CPU; a refactor must give the same numbers. `python tests/test_training.py` writes them."""
    golden = json.loads(GOLDEN.read_text())
    found = plain_trace()
    assert len(found) == len(golden)
    for ours, expected in zip(found, golden, strict=True):
        assert ours == pytest.approx(expected, rel=GOLDEN_TOLERANCE, abs=1e-4)


def plain_trace() -> list[dict[str, float]]:
    """`golden_trace` in a process of its own, as the instructions to use are read when torch is loaded."""
    command = [sys.executable, __file__, "trace"]
    done = subprocess.run(command, env=os.environ | PLAIN, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def golden_trace(folder: Path) -> list[dict[str, float]]:
    stores = toy_store(folder / "synthetic", 60, 0), toy_store(folder / "real", 50, 1, real=True)
    config = small(
        training__pretrain_refiner=4, training__pretrain_discriminator=4, training__steps=12, loss__lambda_sum=0.2
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        out = training.train(*stores, folder / "golden", config, seed=0, progress=False)
    finally:
        torch.set_num_threads(threads)
    kept = ("iteration", "loss_refiner", "loss_adversarial", "loss_discriminator", "refined_minus_input")
    return [{key: line[key] for key in kept if key in line} for line in read_metrics(out)]


def test_refined_images_become_like_real_ones(stores: tuple, tmp_path: Path) -> None:
    """Real toy eyes are darker by 0.3; sixty steps must find that without losing the iris."""
    config = small(
        refiner__width=8, training__steps=60, training__pretrain_refiner=60, training__pretrain_discriminator=20,
        training__log_every=50, loss__lambda_sum=0.1, training__average_decay=0.9,
    )  # fmt: skip
    out = training.train(*stores, tmp_path / "run", config, progress=False)
    synthetic, real = (to_float(torch.from_numpy(s.images().copy())) for s in stores)
    refined = load_refiner(out)(synthetic)
    gap_before, gap_after = ((images.mean() - real.mean()).abs().item() for images in (synthetic, refined))
    assert gap_after < 0.5 * gap_before
    iris = synthetic < 0
    assert refined[iris].mean() < refined[~iris].mean() - 0.4


@pytest.mark.parametrize("psi", ["identity", "channel_mean", "derivatives", "learned"])
def test_every_psi_trains(stores: tuple, tmp_path: Path, psi: str) -> None:
    from simgan_core.gaze_estimator import GazeCNN, save_gaze_cnn

    save_gaze_cnn(GazeCNN(0.1), tmp_path / "features.safetensors")
    config = small(loss__psi=psi, loss__feature_net=str(tmp_path / "features.safetensors"), training__steps=2)
    out = training.train(*stores, tmp_path / "run", config, progress=False)
    assert read_metrics(out)[-1]["loss_regularisation"] > 0


def test_global_discriminator_and_colour_and_sgd_train(tmp_path: Path) -> None:
    synthetic = toy_store(tmp_path / "s", 20, 0, channels=3)
    real = toy_store(tmp_path / "r", 20, 1, real=True, channels=3)
    config = c.with_channels(small(discriminator__kind="global", training__optimiser="sgd"), 3)
    config = c.with_overrides(config, {"training.learning_rate": 1e-5})
    out = training.train(synthetic, real, tmp_path / "run", config, progress=False)
    assert load_refiner(out)(torch.zeros(1, 3, 35, 55)).shape == (1, 3, 35, 55)


def test_global_discriminators_loss_weighs_like_all_patches(stores: tuple, tmp_path: Path) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    local, whole = (
        training.AlgorithmOne(fabric, small(discriminator__kind=kind), *stores, tmp_path, seed=0)
        for kind in ("local", "global")
    )
    assert local.patch_weight(torch.zeros(1, 2, 9, 14)) == 1
    assert whole.patch_weight(torch.zeros(1, 2, 1, 1)) == 126


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_large_profiles_run_for_a_few_steps(stores: tuple, tmp_path: Path, name: str) -> None:
    """Their networks, K_g, K_d and weights, on few images, so that they cannot rot."""
    few = {"batch": 4, "history_images": 8, "steps": 1, "pretrain_refiner": 1, "pretrain_discriminator": 1}
    config = c.with_overrides(profiles.profile(name), {f"training.{k}": v for k, v in few.items()})
    out = training.train(*stores, tmp_path / "run", config, device="cpu", progress=False)
    assert json.loads((out / "provenance.json").read_text())["parameters"] == {
        "refiner": 296_129,
        "discriminator": 75_906,
    }


@pytest.mark.slow
def test_two_processes_by_torchrun(stores: tuple, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        "from simgan_core import config, training\nfrom simgan_core.datasets.store import Store\n"
        "synthetic, real, out, file = map(Path, sys.argv[1:5])\n"
        "for steps in (2, 4):  # the second call resumes the first\n"
        "    settings = config.with_overrides(config.from_json(file.read_text()), {'training.steps': steps})\n"
        "    training.train(Store.open(synthetic), Store.open(real), out, settings, device='cpu', resume=True,\n"
        "                   progress=False)\n"
    )
    (tmp_path / "config.json").write_text(c.to_json(small()))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
        + [str(path) for path in (*(s.path for s in stores), tmp_path / "run", tmp_path / "config.json")],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    state = load_state(tmp_path / "run" / CHECKPOINT)
    assert state["iteration"] == 8 and len(state["processes"]) == 2
    first, second = (p["history"]["images"] for p in state["processes"])
    assert len(first) == len(second) == 8 and not torch.equal(first, second)
    assert len(read_metrics(tmp_path / "run")) == 8
    assert load_refiner(tmp_path / "run").config.width == 4


# --- messages


def test_non_finite_loss_stops_with_step_and_components(stores: tuple, tmp_path: Path) -> None:
    config = small(training__learning_rate=1e30, training__optimiser="sgd", refiner__output="none")
    with pytest.raises(training.NonFiniteLossError, match=r"step \d+ of phase pretrain_\w+: loss_\w+ (nan|inf)"):
        training.train(*stores, tmp_path / "run", config, progress=False)


def test_wrong_images_are_refused_before_any_work(stores: tuple, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"synthetic images .* size \(35, 55\) .* expected \(36, 60\)"):
        training.train(*stores, tmp_path / "run", small(data__size="36x60"), progress=False)
    colour = toy_store(tmp_path / "colour", 4, 0, channels=3)
    with pytest.raises(ValueError, match=r"real images .* 3 channel"):
        training.train(stores[0], colour, tmp_path / "run", small(), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_is_neither_overwritten_nor_mixed(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "run", small(), progress=False)
    with pytest.raises(ValueError, match="already holds a run"):
        training.train(*stores, out, small(), progress=False)
    with pytest.raises(ValueError, match=r"loss.lambda_sum 0.8 -> 0.3"):
        training.train(*stores, out, small(loss__lambda_sum=0.3), resume=True, progress=False)
    with pytest.raises(ValueError, match="made with seed 0"):
        training.train(*stores, out, small(training__steps=9), seed=1, resume=True, progress=False)
    other = toy_store(tmp_path / "other", 50, 7, real=True)
    with pytest.raises(ValueError, match="other real images"):
        training.train(stores[0], other, out, small(training__steps=9), resume=True, progress=False)


def test_a_training_is_not_resumed_to_fewer_steps_than_it_has(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "run", small(), progress=False)
    before = (out / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"steps, pretraining included; \d+ asked for. Raise training.steps"):
        training.train(*stores, out, small(training__steps=1), resume=True, progress=False)
    assert (out / "config.json").read_bytes() == before


def test_damaged_files_are_named(stores: tuple, tmp_path: Path) -> None:
    out = training.train(*stores, tmp_path / "run", small(), progress=False)
    for name in (CHECKPOINT, "refiner.safetensors"):
        (out / name).write_bytes((out / name).read_bytes()[:100])
    with pytest.raises(ValueError, match=r"checkpoint.pt cannot be read"):
        training.train(*stores, out, small(), resume=True, progress=False)
    with pytest.raises(ValueError, match=r"refiner.safetensors is not a safetensors file"):
        load_refiner(out)
    with pytest.raises(FileNotFoundError, match=r"holds no refiner.safetensors"):
        load_refiner(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_refiner(tmp_path / "none.safetensors")


def test_warning_signs() -> None:
    good = {"refined_minus_input": 0.1, "refined_spread": 0.9, "accuracy_real": 0.8, "accuracy_fresh": 0.7}
    assert warning_signs(good) == []
    assert "equals input" in warning_signs(good | {"refined_minus_input": 0.002})[0]
    assert "collapse" in warning_signs(good | {"refined_spread": 0.1})[0]
    assert "certain" in warning_signs(good | {"accuracy_real": 1.0, "accuracy_fresh": 1.0})[0]


def test_an_overwhelming_lambda_is_reported(stores: tuple, tmp_path: Path) -> None:
    """An L1 that outweighs everything: refined = input, the commonest complaint about other implementations."""
    config = small(
        loss__lambda_sum=1000, training__steps=5, training__pretrain_refiner=300, refiner__output="none",
        training__learning_rate=2e-3, training__log_every=5,
    )  # fmt: skip
    out = training.train(*stores, tmp_path / "run", config, progress=False)
    last = read_metrics(out)[-1]
    assert last["refined_minus_input"] < 0.05
    assert (last["refined_minus_input"] < 0.01) == any("equals input" in w for w in last["warnings"])


# --- precision


def test_auto_precision_looks_at_the_processor(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Some CPU: 2 GHz\nflags\t\t: fpu avx512f avx512_bf16\n")
    assert cpu_has_bf16(info) and cpu_model(info) == "Some CPU: 2 GHz"
    info.write_text("processor : 0\nflags\t\t: fpu avx512f\n")
    assert not cpu_has_bf16(info)
    assert not cpu_has_bf16(tmp_path / "none")
    assert resolve_precision("fp32", torch.device("cpu")) == "fp32"
    assert resolve_precision("auto", torch.device("cpu")) == ("bf16" if cpu_has_bf16() else "fp32")


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="expected 'auto'"):
        resolve_device("gpu0")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA"):
            resolve_device("cuda")


def test_bf16_trains(stores: tuple, tmp_path: Path) -> None:
    out = training.train(
        *stores, tmp_path / "run", small(training__precision="bf16", training__steps=1), progress=False
    )
    assert all(value.dtype == torch.float32 for value in load_refiner(out).state_dict().values())


if __name__ == "__main__":  # rewrites the golden numbers, after a change that is meant to change them
    import tempfile

    if sys.argv[1:] == ["trace"]:
        with tempfile.TemporaryDirectory() as name:
            print(json.dumps(golden_trace(Path(name))))
    else:
        GOLDEN.write_text(json.dumps(plain_trace(), indent=1) + "\n")


def test_without_self_regularisation_the_refiner_still_learns_to_copy_first(
    stores: tuple[Store, Store], tmp_path: Path
) -> None:
    """Else lambda = 0 would be a network that never learnt, and no unpaired translation."""
    pretrained = {}
    for lam in (0.0, 1.0):
        config = with_overrides(small(), {"loss.lambda_sum": lam, "training.pretrain_refiner": 40})
        one = training.AlgorithmOne(Fabric(accelerator="cpu", devices=1), config, *stores, tmp_path / str(lam), seed=0)
        losses = [one.update_refiner(adversarial=False)["loss_regularisation"].item() for _ in range(40)]
        first, last = losses[0], losses[-1]
        assert last < 0.5 * first
        pretrained[lam] = last
    assert pretrained[0.0] == pretrained[1.0], "its weight in that phase is 1"
