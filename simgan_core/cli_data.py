"""The commands that make images: `simgan data` and `simgan simulate`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from simgan_core.cli_options import LARGEST_SEED

data_app = typer.Typer(no_args_is_help=True, help="Bring and prepare data sets.")
simulate_app = typer.Typer(no_args_is_help=True, help="Render labelled synthetic images.")


class ImageFormat(StrEnum):
    """How rendered eyes are written."""

    STORE = "store"
    UNITYEYES = "unityeyes"


@data_app.command("prepare")
def prepare_data(
    data: Annotated[str, typer.Option(help="embedded (needs nothing), mini or full (need a data root).")] = "embedded",
    profile: Annotated[str, typer.Option(help="smoke, cpu, gpu or paper: decides how many images.")] = "cpu",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets; default SIMGAN_DATA_ROOT, else data/.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the stores; default in runs/<profile>-<data>.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the renders.")] = 0,
    hands: Annotated[bool, typer.Option("--hands", help="Write the stores of depth hands instead of eyes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write the stores that a run works on (synthetic, real, test); finished ones are kept."""
    from simgan_core.locks import LOCK, alone, refused_while_held
    from simgan_core.run_folder import RunFolder

    make = _prepare_hands if hands else _prepare_eyes
    if out is not None:
        found = make(data, profile, data_root, out, seed)
    elif seed:
        raise ValueError(f"--seed {seed} without --out found; a run's own stores have seed 0. Name another --out.")
    else:
        run = RunFolder.open("", data=data, profile_name=profile, data_root=data_root)
        stores = run.path / "hands" / "stores" if hands else run.stores
        # Trainings map these files: they must not change under them.
        with refused_while_held(run.path / LOCK), alone(stores.parent / ".stores.lock"):
            found = make(data, profile, data_root, stores, seed)
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))


def _prepare_eyes(data: str, profile: str, data_root: Path | None, out: Path, seed: int) -> dict[str, object]:
    from simgan_core.datasets.prepare import prepare
    from simgan_core.profiles import profile as named_profile
    from simgan_core.run_folder import find_data_root

    prepared = prepare(data, named_profile(profile), find_data_root(data_root), out, seed)
    return {
        "synthetic": str(prepared.synthetic),
        "real": str(prepared.real),
        "test": str(prepared.test),
        "real_is_standin": prepared.real_is_standin,
    }


def _prepare_hands(data: str, profile: str, data_root: Path | None, out: Path, seed: int) -> dict[str, object]:
    from simgan_core.config_hand import hand_profile
    from simgan_core.datasets.prepare_hands import prepare_hands
    from simgan_core.run_folder import find_data_root

    prepared = prepare_hands(data, hand_profile(profile), find_data_root(data_root), out, seed)
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(prepared).items()}


@data_app.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="Data set: unityeyes2.")],
    out: Annotated[
        Path | None, typer.Option(help="Data root to put it in; default SIMGAN_DATA_ROOT, else data/.")
    ] = None,
) -> None:
    """Download a public data set, checked against known checksums; MPIIGaze and NYU you fetch under their own terms."""
    from simgan_core.datasets.fetch import fetch
    from simgan_core.run_folder import find_data_root

    typer.echo(str(fetch(name, find_data_root(out))))


@data_app.command("import")
def import_images(
    folder: Annotated[Path, typer.Argument(help="A UnityEyes folder, or any folder of images (labels.csv is read).")],
    out: Annotated[Path, typer.Argument(help="The store to write; must not exist.")],
    size: Annotated[str, typer.Option(help="Height x width of the images in the store.")] = "35x55",
    colour: Annotated[bool, typer.Option("--colour", help="RGB instead of grey.")] = False,
    equalise: Annotated[
        bool | None,
        typer.Option(
            help="Equalise histograms, as our renders are; default: UnityEyes' images alone.", show_default=False
        ),
    ] = None,
) -> None:
    """Make a store of a folder of images: cropped to the aspect ratio, resized, and equalised if you say so."""
    from simgan_core.datasets.folder import prepare_folder
    from simgan_core.datasets.open_images import is_unityeyes
    from simgan_core.datasets.unityeyes import prepare_unityeyes

    rows, times, columns = size.lower().partition("x")
    if not (times and rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
        raise ValueError(f"--size {size!r} found; expected height x width in pixels, e.g. 35x55")
    shape = (int(rows), int(columns))
    if is_unityeyes(folder):
        store = prepare_unityeyes(folder, out, size=shape, colour=colour, equalise=equalise is not False)
    else:
        store = prepare_folder(folder, out, size=shape, colour=colour, equalise=bool(equalise))
    labels = ", ".join(name for name in store.columns if name != "file")
    typer.echo(f"{out}: {len(store)} images, labels: {labels or 'none'}")


@simulate_app.command("eyes")
def simulate_eyes(
    count: Annotated[int, typer.Option(min=1, help="Number of images.")],
    out: Annotated[Path, typer.Option(help="Where they go; must not exist.")],
    assets: Annotated[
        Path | None, typer.Option(help="Folder of UnityEyes' assets; default: procedural eyes, which need no files.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Image i of a seed is the same whatever the batch size.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    colour: Annotated[bool, typer.Option("--colour", help="RGB instead of grey.")] = False,
    ranges: Annotated[
        Path | None,
        typer.Option(
            help="What varies, and how far (.json of 'simgan fit'); default: EyeRanges, of UnityEyes' assets those "
            "fitted to MPIIGaze."
        ),
    ] = None,
    gaze_of: Annotated[
        Path | None, typer.Option(help="A store whose gaze labels are drawn from; default: uniform within the ranges.")
    ] = None,
    camera: Annotated[
        Path | None, typer.Option(help="What takes the pictures (.json of 'simgan fit --camera-out'); default: none.")
    ] = None,
    form: Annotated[
        ImageFormat, typer.Option("--format", help="A store, or UnityEyes' imgs/N.jpg and imgs/N.json.")
    ] = ImageFormat.STORE,
) -> None:
    """Render labelled eyes, equalised and framed as in MPIIGaze (35 x 55), with gaze, head pose and landmarks."""
    from simgan_core.datasets.store import Store
    from simgan_core.simulators.camera_file import load_camera
    from simgan_core.simulators.eye import EyeSimulator
    from simgan_core.simulators.mpiigaze_ranges import MPIIGAZE_RANGES
    from simgan_core.simulators.ranges import EyeRanges, load_ranges
    from simgan_core.simulators.simulate import load_assets
    from simgan_core.simulators.simulate import simulate_eyes as simulate

    if camera is not None and form is ImageFormat.UNITYEYES:
        raise ValueError(f"--camera {camera} with --format unityeyes found; a store expected: blur is in its pixels")
    within = (EyeRanges() if assets is None else MPIIGAZE_RANGES) if ranges is None else load_ranges(ranges)
    if gaze_of is not None:
        within = within.with_prior(Store.open(gaze_of).pitch_yaw())
    sensor = None if camera is None else load_camera(camera)
    eye_assets = load_assets(assets)
    if form is ImageFormat.UNITYEYES:
        from simgan_core.simulators.unityeyes_writer import write_unityeyes

        write_unityeyes(EyeSimulator(eye_assets, within, colour=True, device=device), out, count, seed)
    else:
        simulate(count, out, assets=eye_assets, ranges=within, seed=seed, device=device, colour=colour, sensor=sensor)
    typer.echo(str(out))


@simulate_app.command("hands")
def simulate_hands(
    count: Annotated[int, typer.Option(min=1, help="Number of images; views of a pose follow each other.")],
    out: Annotated[Path, typer.Option(help="The store to write; must not exist.")],
    assets: Annotated[
        list[Path] | None,
        typer.Option(
            help="A hand mesh (.npz, .glb), a folder for all its meshes, or 'procedural', which needs no files and is "
            "the default. Give it again for more hands: they take turns in blocks of 64 poses."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Image i of a seed is the same whatever the batch size.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    size: Annotated[int, typer.Option(min=16, help="Height and width of the crops in pixels.")] = 224,
    views: Annotated[int, typer.Option(min=1, max=3, help="Cameras about the hand.")] = 3,
    prior: Annotated[
        Path | None, typer.Option(help="Poses to draw from (.npz of 'simulate hand-prior'); default: sampled.")
    ] = None,
    target: Annotated[
        bool, typer.Option("--target", help="The stand-in target: other hands, seen by a structured-light camera.")
    ] = False,
) -> None:
    """Render depth crops of hands as NYU's are cut, with 14, 21 and 36 joints in pixels and mm."""
    from simgan_core.simulators import hand_simulate as hands
    from simgan_core.simulators.hand_ranges import HandRanges, PosePrior, target_ranges
    from simgan_core.simulators.kinect import KinectCamera

    default = hands.stand_in_assets() if target else hands.load_hand_assets()
    shown = hands.named_hands(assets) if assets else (default,)
    ranges = target_ranges() if target else HandRanges()
    if prior is not None:
        ranges = ranges.with_prior(PosePrior.load(prior))
    sensor = KinectCamera() if target else None
    hands.simulate_hands(
        count, out, assets=shown, ranges=ranges, seed=seed, device=device, size=(size, size), views=views, sensor=sensor
    )
    typer.echo(str(out))


@simulate_app.command("hand-prior")
def fit_hand_prior(
    truth: Annotated[Path, typer.Argument(help="Recorded joints: .npz with uvd [frames, 14, 3], pixels and mm.")],
    out: Annotated[Path, typer.Option(help="The poses to write, for 'simulate hands --prior' (.npz).")],
    frames: Annotated[int, typer.Option(min=1, help="Frames to fit, evenly spread; 200 take about a minute.")] = 200,
    all_blocks: Annotated[
        bool,
        typer.Option("--all-blocks", help="Every frame, not every second block of 400; then none is left to test."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit hand poses to recorded joints (inverse kinematics); prints the error of the fit in mm."""
    from simgan_core.simulators.hand_fit import fit_recorded
    from simgan_core.simulators.hand_simulate import load_hand_assets

    if out.suffix != ".npz":
        raise ValueError(f"--out {out} found; a name that ends in .npz expected")
    fitted = fit_recorded(truth, load_hand_assets(), frames=frames, all_blocks=all_blocks)
    prior = fitted.prior()
    prior.save(out)
    found = fitted.fit.summary() | {"poses": len(prior), "source": prior.source, "out": str(out)}
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value}" for name, value in found.items()))
