"""The command `simgan gaze`: train a gaze CNN on labelled images, refined ones above all, and ask it about others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from simgan_core.cli_options import LARGEST_SEED, check_place

LABELS = ("pitch", "yaw")
"""Of a folder's labels.csv; what else is in it matters to nobody here."""

gaze_app = typer.Typer(no_args_is_help=True, help="Train a gaze estimator on refined images, and use it.")


@gaze_app.command("train")
def train_gaze(
    images: Annotated[Path, typer.Argument(help="A store with pitch and yaw, a UnityEyes folder, or a folder with "
                                                "labels.csv (file, pitch, yaw in radians).")],
    out: Annotated[Path, typer.Argument(help="The weights to write (.safetensors); must not exist.")],
    profile: Annotated[str, typer.Option(help="Width, steps and batch: smoke, cpu, gpu or paper.")] = "cpu",
    augment: Annotated[
        bool, typer.Option("--augment", help="Vary light, blur, noise and framing of the training images.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of weights, order and augmentation.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates; default the profile's.")] = None,
    colour: Annotated[bool, typer.Option("--colour", help="Images are RGB.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:  # fmt: skip
    """Train the paper's gaze CNN from scratch (section 3.1)."""
    from dataclasses import replace

    from simgan_core.datasets.open_images import open_images
    from simgan_core.datasets.store import Store
    from simgan_core.datasets.writer import MANIFEST
    from simgan_core.gaze_estimator import save_gaze_cnn, train_gaze_cnn
    from simgan_core.profiles import profile as named_profile

    if out.suffix != ".safetensors" or out.exists():
        raise ValueError(f"{out} found; expected the name of a new file that ends in .safetensors")
    config = named_profile(profile)
    settings = config.gaze if steps is None else replace(config.gaze, steps=steps)
    check_place(out)
    size = Store.open(images).size if (images / MANIFEST).is_file() else config.data.size
    store = open_images(images, size, colour=colour, labels=LABELS)
    model = train_gaze_cnn(store, store.pitch_yaw(), settings, seed=seed, augment=augment, device=device)
    save_gaze_cnn(model, out)
    typer.echo(f"{out}\nnext: simgan gaze predict {out} IMAGES OUT.npz")


@gaze_app.command("predict")
def predict_gaze(
    weights: Annotated[Path, typer.Argument(help="Weights of 'simgan gaze train'.")],
    images: Annotated[Path, typer.Argument(help="A store, or a folder of images: cropped and resized as in training.")],
    out: Annotated[Path, typer.Argument(help="The .npz to write: `predicted` [N, 2], pitch and yaw in radians; labels, "
                                             "if there are any, as `pitch_yaw`; files' names as `files`.")],
    committee: Annotated[
        list[Path] | None,
        typer.Option(help="Weights of another CNN that answers too, e.g. trained with another --seed; may be given "
                          "several times. The mean direction of all is written; it mostly errs less than one does."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
) -> None:  # fmt: skip
    """Estimate the gaze of every image; 'simgan evaluate gaze OUT OUT' scores the answers where labels are known."""
    import numpy as np

    from simgan_core.datasets.open_images import open_images
    from simgan_core.evaluation import comparison
    from simgan_core.gaze_estimator import load_gaze_cnn, predict
    from simgan_core.precision import resolve_device

    if out.suffix != ".npz":
        raise ValueError(f"{out} found; expected a name that ends in .npz")
    check_place(out)
    files = [weights, *(committee or [])]
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError(
            f"{', '.join(map(str, files))} found; expected different CNNs: one that answers twice adds nothing"
        )
    models = [load_gaze_cnn(file).to(resolve_device(device)) for file in files]
    shapes = [(model.channels, *model.size) for model in models]
    if len(set(shapes)) > 1:
        raise ValueError(
            f"CNNs of images {shapes} found, (channels, height, width); expected equal ones in a committee"
        )
    store = open_images(images, models[0].size, colour=models[0].channels == 3, labels=LABELS)
    answers = np.stack([predict(model, store) for model in models])
    arrays: dict[str, Any] = {"predicted": comparison.committee(answers) if committee else answers[0]}
    if store.has_labels:
        arrays["pitch_yaw"] = store.pitch_yaw()
    if "file" in store.columns:
        arrays["files"] = store.annotations(["file"])["file"].to_numpy(dtype=str)
    partial = out.with_suffix(".partial.npz")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(partial, out)
    typer.echo(str(out))
