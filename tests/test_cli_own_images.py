"""Somebody's own images through the command line: into a store, refined, and to a gaze estimator and its score."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from simgan_core.checkpoints import load_refiner, save_refiner
from simgan_core.cli import app
from simgan_core.datasets.open_images import open_images
from simgan_core.datasets.store import Store
from simgan_core.gaze import gaze_vector, pitch_yaw
from simgan_core.models import Refiner
from simgan_core.profiles import profile
from simgan_core.refine import refine_images

RUNNER = CliRunner()
DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))


def simgan(*arguments: object) -> str:
    done = RUNNER.invoke(app, [str(part) for part in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve wide, dark photographs with gaze labels."""
    rng, place = np.random.default_rng(0), tmp_path / "photographs"
    place.mkdir()
    names = [f"{k:02}.png" for k in range(12)]
    for name in names:
        Image.fromarray(rng.integers(20, 60, (70, 200), dtype=np.uint8)).save(place / name)
    labels = pd.DataFrame({"file": names, "pitch": rng.uniform(-0.3, 0, 12), "yaw": rng.uniform(-0.3, 0.3, 12)})
    labels.to_csv(place / "labels.csv", index=False)
    return place


def test_a_folder_becomes_a_store(folder: Path, tmp_path: Path) -> None:
    assert "12 images, labels: pitch, yaw" in simgan("data", "import", folder, tmp_path / "plain")
    plain = Store.open(tmp_path / "plain")
    assert plain.size == (35, 55) and plain.images().max() < 60
    simgan("data", "import", folder, tmp_path / "equalised", "--equalise", "--size", "36x60")
    equalised = Store.open(tmp_path / "equalised")
    assert equalised.size == (36, 60)
    spread = [float(np.std(store.images(), axis=(1, 2, 3)).min()) for store in (plain, equalised)]
    assert spread[0] < 15 and spread[1] > 60, "flat grey levels from 0 to 255 spread by 74"
    with pytest.raises(ValueError, match="--size '35' found; expected height x width"):
        simgan("data", "import", folder, tmp_path / "x", "--size", "35")
    assert not (tmp_path / "x").exists()


def test_unityeyes_images_are_equalised_unless_told_otherwise(tmp_path: Path) -> None:
    simgan("simulate", "eyes", "--count", 2, "--out", tmp_path / "eyes", "--format", "unityeyes")
    simgan("data", "import", tmp_path / "eyes", tmp_path / "default")
    simgan("data", "import", tmp_path / "eyes", tmp_path / "raw", "--no-equalise")
    default, raw = (Store.open(tmp_path / name) for name in ("default", "raw"))
    assert {"pitch", "yaw"} <= set(default.columns)
    assert np.array_equal(default.images(), open_images(tmp_path / "eyes", cache=tmp_path / "c").images())
    assert not np.array_equal(default.images(), raw.images())


def test_refine_crops_as_training_does(folder: Path, tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        refiner = Refiner(profile("smoke").refiner, (35, 55))
    save_refiner(refiner, tmp_path / "r.safetensors", profile("smoke"), seed=0, step=1)
    simgan("refine", tmp_path / "r.safetensors", folder, tmp_path / "refined", "--resize")
    expected = refine_images(refiner, open_images(folder, cache=tmp_path / "cache").images())
    found = np.stack([np.array(Image.open(path)) for path in sorted((tmp_path / "refined").glob("*.png"))])
    assert np.array_equal(found, expected[:, 0]), "the images that the refiner was trained on, not stretched ones"


def test_gaze_from_labelled_images_to_a_score(folder: Path, tmp_path: Path) -> None:
    simgan("simulate", "eyes", "--count", 24, "--out", tmp_path / "eyes")
    weights = tmp_path / "gaze.safetensors"
    simgan("gaze", "train", tmp_path / "eyes", weights, "--profile", "smoke", "--steps", 3, "--augment")
    simgan("gaze", "predict", weights, tmp_path / "eyes", tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        assert set(arrays) == {"predicted", "pitch_yaw"}
        assert arrays["predicted"].shape == (24, 2) and np.isfinite(arrays["predicted"]).all()
        assert np.array_equal(arrays["pitch_yaw"], Store.open(tmp_path / "eyes").pitch_yaw())
    score = json.loads(simgan("evaluate", "gaze", tmp_path / "p.npz", tmp_path / "p.npz", "--json"))
    assert score["n"] == 24 and 0 < score["mean_error_deg"] < 90

    (folder / "labels.csv").unlink()
    simgan("gaze", "predict", weights, folder, tmp_path / "own.npz")
    with np.load(tmp_path / "own.npz") as arrays:
        assert arrays["files"].tolist() == [f"{k:02}.png" for k in range(12)] and "pitch_yaw" not in arrays
        assert arrays["predicted"].shape == (12, 2)
    with pytest.raises(ValueError, match=r"no gaze labels .*; expected columns pitch and yaw.*labels\.csv"):
        simgan("gaze", "train", folder, tmp_path / "new.safetensors")
    with pytest.raises(ValueError, match="expected the name of a new file"):
        simgan("gaze", "train", tmp_path / "eyes", weights)
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        simgan("gaze", "predict", weights, folder, tmp_path / "own.txt")


def test_a_committee_writes_the_mean_direction_of_its_cnns(folder: Path, tmp_path: Path) -> None:
    names = [tmp_path / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, weights in enumerate(names):
        simgan("gaze", "train", folder, weights, "--profile", "smoke", "--steps", 2, "--seed", seed)
        simgan("gaze", "predict", weights, folder, tmp_path / f"{seed}.npz")
    simgan("gaze", "predict", names[0], folder, tmp_path / "both.npz", "--committee", names[1])
    one, other, both = (np.load(tmp_path / f"{name}.npz")["predicted"] for name in ("0", "1", "both"))
    mean = pitch_yaw(gaze_vector(one.astype(float)) + gaze_vector(other.astype(float)))
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(both, mean, atol=1e-6)
    with pytest.raises(ValueError, match="expected different CNNs"):
        simgan("gaze", "predict", names[0], folder, tmp_path / "x.npz", "--committee", names[0])
    simgan("data", "import", folder, tmp_path / "wide", "--size", "36x60")
    simgan("gaze", "train", tmp_path / "wide", tmp_path / "wide.safetensors", "--profile", "smoke", "--steps", 2)
    with pytest.raises(ValueError, match=r"\(1, 36, 60\).* expected equal ones"):
        simgan("gaze", "predict", names[0], folder, tmp_path / "x.npz", "--committee", tmp_path / "wide.safetensors")
    assert not (tmp_path / "x.npz").exists()


def test_gaze_can_follow_another_stores(folder: Path, tmp_path: Path) -> None:
    labels = pd.read_csv(folder / "labels.csv")
    labels.assign(pitch=-0.1, yaw=np.where(labels.index % 2, 0.3, -0.3)).to_csv(folder / "labels.csv", index=False)
    simgan("data", "import", folder, tmp_path / "store")
    simgan("simulate", "eyes", "--count", 40, "--out", tmp_path / "eyes", "--gaze-of", tmp_path / "store")
    yaw = Store.open(tmp_path / "eyes").pitch_yaw()[:, 1]
    assert np.abs(np.abs(yaw) - 0.3).max() < 0.1, "near one of the two, where uniform gaze would fill the middle"
    assert 10 < (yaw > 0).sum() < 30


def test_renders_of_unityeyes_assets_keep_the_fitted_ranges(tmp_path: Path) -> None:
    assets = DATA_ROOT / "unityeyes2"
    if not assets.is_dir():
        pytest.skip("needs UnityEyes' assets in the data root")
    from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES

    simgan("simulate", "eyes", "--count", 2, "--out", tmp_path / "theirs", "--assets", assets)
    simgan("simulate", "eyes", "--count", 2, "--out", tmp_path / "ours")
    kappa = [Store.open(tmp_path / n).provenance["ranges"]["kappa_yaw_normal_deg"] for n in ("theirs", "ours")]
    assert kappa == [list(MPIIGAZE_RANGES.kappa_yaw_normal_deg), [0.0, 0.0]]


def test_equalised_beside_plain_images_is_warned_of(folder: Path, tmp_path: Path) -> None:
    simgan("simulate", "eyes", "--count", 40, "--out", tmp_path / "eyes")
    simgan("data", "import", folder, tmp_path / "equalised", "--equalise")
    sizes = [f"training.{name}=1" for name in ("steps", "pretrain_refiner", "pretrain_discriminator")]
    options = [part for size in sizes for part in ("--set", size)]

    def train(real: Path, out: str) -> str:
        return simgan(
            "train", "--synthetic", tmp_path / "eyes", "--real", real, "--out", tmp_path / out, "--profile", "smoke",
            *options,
        )  # fmt: skip

    assert f"histograms of {tmp_path / 'eyes'} are equalised and those of {folder} are not" in train(folder, "a")
    assert "warning" not in train(tmp_path / "equalised", "b")


def test_settings_alone_make_a_training_colour(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("renders", "photographs"):
        (tmp_path / kind).mkdir()
        for k in range(10):
            Image.fromarray(rng.integers(0, 256, (35, 55, 3), dtype=np.uint8)).save(tmp_path / kind / f"{k}.png")
    settings = [f"{name}.channels=3" for name in ("data", "refiner", "discriminator")] + ["loss.psi=channel_mean"]
    settings += [f"training.{name}=1" for name in ("steps", "pretrain_refiner", "pretrain_discriminator")]
    options = [part for setting in settings for part in ("--set", setting)]
    folders = ["--synthetic", tmp_path / "renders", "--real", tmp_path / "photographs"]
    simgan("train", *folders, "--out", tmp_path / "run", "--profile", "smoke", *options)
    assert load_refiner(tmp_path / "run").config.channels == 3
    options[options.index("loss.psi=channel_mean")] = "loss.psi=identity"  # named, so that --colour leaves it alone
    simgan("train", *folders, "--out", tmp_path / "plain", "--profile", "smoke", "--colour", *options)
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["loss"]["psi"] == "identity"


def test_labels_that_nobody_reads_stop_nothing(folder: Path, tmp_path: Path) -> None:
    labels = pd.read_csv(folder / "labels.csv")
    labels.assign(subject="p01").to_csv(folder / "labels.csv", index=False)
    simgan("gaze", "train", folder, tmp_path / "g.safetensors", "--profile", "smoke", "--steps", 2)
    simgan("gaze", "predict", tmp_path / "g.safetensors", folder, tmp_path / "p.npz")
    assert "pitch_yaw" in np.load(tmp_path / "p.npz")
    (folder / "labels.csv").write_text("whatever")
    sizes = [f"training.{name}=1" for name in ("steps", "pretrain_refiner", "pretrain_discriminator", "log_every")]
    settings = [part for size in sizes for part in ("--set", size)]
    simgan("train", "--synthetic", folder, "--real", folder, "--out", tmp_path / "run", "--profile", "smoke", *settings)


def test_a_store_of_another_size_trains_a_gaze_cnn_of_that_size(folder: Path, tmp_path: Path) -> None:
    simgan("data", "import", folder, tmp_path / "store", "--size", "48x72")
    simgan("gaze", "train", tmp_path / "store", tmp_path / "g.safetensors", "--profile", "smoke", "--steps", 2)
    simgan("gaze", "predict", tmp_path / "g.safetensors", folder, tmp_path / "p.npz")
    assert np.load(tmp_path / "p.npz")["predicted"].shape == (12, 2)


def test_a_seed_that_no_generator_takes_is_refused(folder: Path, tmp_path: Path) -> None:
    for seed in (-1, 10**20):
        done = RUNNER.invoke(app, ["gaze", "train", str(folder), str(tmp_path / "g.safetensors"), "--seed", str(seed)])
        assert done.exit_code == 2 and "--seed" in done.output


def test_where_nothing_can_be_written_is_said_before_any_work(folder: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("a file, where a folder is needed")
    images = tmp_path / "no_images"
    commands = [
        ("fit", images, images, "--out", notes / "ranges.json"),
        ("fit", images, images, "--out", tmp_path / "ranges.json", "--camera-out", notes / "camera.json"),
        ("gaze", "train", images, notes / "gaze.safetensors"),
        ("gaze", "predict", images, images, notes / "predicted.npz"),
    ]
    for command in commands:
        with pytest.raises(ValueError, match=r"notes.* cannot be written .*Name another place"):
            simgan(*command)
    with pytest.raises(ValueError, match=r"photographs is a folder; the name of a file expected"):
        simgan("fit", images, images, "--out", folder)
    assert notes.is_file() and list(tmp_path.glob("*.json")) == []


def test_options_that_would_do_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    simgan("data", "import", folder, tmp_path / "store")
    save_refiner(Refiner(profile("smoke").refiner), tmp_path / "r.safetensors", profile("smoke"), seed=0, step=0)
    with pytest.raises(ValueError, match="--resize found beside the store"):
        simgan("refine", tmp_path / "r.safetensors", tmp_path / "store", tmp_path / "out", "--resize")
    with pytest.raises(ValueError, match="--run-seed 3 found without --run"):
        simgan("study", "create", tmp_path / "s.db", "--real", folder, "--refined", folder, "--run-seed", "3")
