"""The `simgan` command line: data, simulate, train, select, choose, refine, gaze, evaluate, study, reproduce, bench.

Modules that need torch are imported inside the commands, so that `--help` is there at once. Errors that a user can mend
are one message on standard error and exit status 1; with `--json`, standard output holds one JSON object alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simgan_core import __version__
from simgan_core.cli_data import data_app, simulate_app
from simgan_core.cli_gaze import gaze_app
from simgan_core.cli_options import LARGEST_SEED, check_place
from simgan_core.cli_study import study_app

if TYPE_CHECKING:
    from simgan_core.config import Config
    from simgan_core.datasets.store import Store
    from simgan_core.validation import Validation

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
evaluate_app = typer.Typer(no_args_is_help=True, help="Score predictions against labels.")
app.add_typer(data_app, name="data")
app.add_typer(simulate_app, name="simulate")
app.add_typer(gaze_app, name="gaze")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(study_app, name="study")

Profile = Annotated[str, typer.Option(help="Sizes of networks, data and training: smoke, cpu, gpu or paper.")]

Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Another value of a setting; may be repeated.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """SimGAN (CVPR 2017) reproduced: from simulated eyes to a scorecard, and refined images of your own."""


@app.command()
def train(
    synthetic: Annotated[Path, typer.Option(help="Synthetic images: a store, a UnityEyes folder or any folder.")],
    real: Annotated[Path, typer.Option(help="Real images without labels: a store or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the run: weights, checkpoint, metrics, samples.")],
    profile: Profile = "cpu",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of weights, batches and history.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    colour: Annotated[bool, typer.Option("--colour", help="Train on RGB images; Psi is the mean of channels.")] = False,
    overrides: Overrides = [],  # noqa: B006 (typer copies it)
) -> None:
    """Train a refiner by Algorithm 1. Images of another size than the profile's are resized (bilinear)."""
    from simgan_core import config as configuration
    from simgan_core.profiles import profile as chosen_profile
    from simgan_core.training import train as run_training

    chosen = configuration.with_channels(chosen_profile(profile), 3) if colour else chosen_profile(profile)
    chosen = configuration.with_overrides(chosen, _settings(overrides))  # last: a psi that was named stays
    stores = _unlabelled(synthetic, real, chosen)
    run = run_training(stores[0], stores[1], out, chosen, seed=seed, resume=resume, device=device)
    typer.echo(f"refiner: {run}\nnext: simgan refine {run} IN OUT")


@app.command()
def select(
    synthetic: Annotated[Path, typer.Argument(help="Synthetic images: a store, a UnityEyes folder or any folder.")],
    real: Annotated[Path, typer.Argument(help="Real images: a store or a folder; no label of it is read.")],
    out: Annotated[Path, typer.Option(help="Folder of the result and the trainings; the same one goes on.")],
    lambdas: Annotated[str, typer.Option(help="Values of loss.lambda_sum to try.")] = "0.1,0.2,0.4,0.8,1.6",
    stops: Annotated[int, typer.Option(help="At how many equally spaced steps each training may be stopped.")] = 3,
    profile: Profile = "cpu",
    overrides: Overrides = [],  # noqa: B006 (typer copies it)
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="Seed of weights, batches, history and fresh discriminators."),
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trainings side by side, a thread each; default by cores or GPU.")
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="Labelled images (store or folder): gaze errors beside the verdicts, which do not see them."),
    ] = None,
    cnns: Annotated[
        int, typer.Option(min=1, help="--validation: gaze CNNs of each kind for each candidate; errors are averaged.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose lambda and the stopping step without labels (docs/selection.md) and export that refiner, if one passes."""
    from simgan_core import config as configuration
    from simgan_core import select_refiner
    from simgan_core.profiles import profile as chosen_profile

    settings = _settings(overrides)
    if "loss.lambda_sum" in settings:
        raise ValueError("--set loss.lambda_sum found; expected lambda in --lambdas alone. Name it there.")
    chosen = configuration.with_overrides(chosen_profile(profile), settings)
    if validation is None and cnns > 1:
        raise ValueError(f"--cnns {cnns} found without --validation; expected labelled images that they are judged on.")
    values = _numbers(lambdas, "--lambdas")
    select_refiner.check_sweep(chosen, values, stops)  # before folders of images are prepared
    stores = _unlabelled(synthetic, real, chosen)
    labelled = None if validation is None else _validation(synthetic, validation, chosen, cnns)
    planned = select_refiner.plan(
        stores[0], stores[1], out, chosen, lambdas=values, stops=stops, seed=seed, validation=labelled
    )
    outcome = select_refiner.select_refiner(planned, workers=workers)
    typer.echo(json.dumps(outcome.report, allow_nan=False) if as_json else select_refiner.summary(outcome, out))


@app.command()
def choose(
    selections: Annotated[
        list[Path], typer.Argument(help="selection.json of each seed, from `simgan select --validation STANDINS`.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose lambda by gaze errors on labelled stand-ins of several seeds: the one-standard-error rule."""
    from simgan_core import standins

    found = standins.read_selections(selections)
    choice = standins.one_standard_error(standins.judged(found))
    raw = [one["raw_validation_error_deg"]["plain"]["value"] for one in found]
    typer.echo(json.dumps(standins.report(choice), allow_nan=False) if as_json else standins.summary(choice, raw))


def _unlabelled(synthetic: Path, real: Path, config: Config) -> tuple[Store, Store]:
    """What Algorithm 1 sees: both kinds of images, whatever labels lie beside them."""
    from simgan_core.datasets.open_images import open_images

    kind: dict[str, Any] = {"size": config.data.size, "colour": config.data.channels == 3, "labels": ()}
    stores = open_images(synthetic, **kind), open_images(real, **kind)
    equalised = [_equalised(store) for store in stores]
    if None not in equalised and equalised[0] != equalised[1]:
        one, other = (synthetic, real) if equalised[0] else (real, synthetic)
        typer.echo(
            f"warning: histograms of {one} are equalised and those of {other} are not: D will tell them apart by that, "
            "and R learn to undo it. Make a store of the latter with 'simgan data import ... --equalise'.",
            err=True,
        )
    return stores


def _validation(synthetic: Path, images: Path, config: Config, cnns: int) -> Validation:
    """The synthetic images and the validation part, both with their gaze labels."""
    from simgan_core.datasets.open_images import open_images
    from simgan_core.validation import Validation

    kind: dict[str, Any] = {"size": config.data.size, "colour": config.data.channels == 3, "labels": ("pitch", "yaw")}
    return Validation(open_images(synthetic, **kind), open_images(images, **kind), config.gaze, cnns)


def _equalised(store: Store) -> bool | None:
    """Whether a store's histograms are equalised; None where its provenance does not say."""
    known = [store.provenance.get(name) for name in ("equalise", "equalised")]
    return next((value for value in known if isinstance(value, bool)), None)


def _settings(texts: list[str]) -> dict[str, object]:
    """`KEY=VALUE` texts as overrides of the configuration."""
    pairs = [text.partition("=") for text in texts]
    for text, (key, equals, _) in zip(texts, pairs, strict=True):
        if not (key and equals):
            raise ValueError(f"--set {text!r} found; expected KEY=VALUE, e.g. --set training.steps=600.")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _numbers(text: str, name: str) -> list[float]:
    """Numbers between commas or spaces."""
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"{name} {text!r} found; expected numbers with commas between, e.g. 0.1,0.2,0.5.") from None


@app.command()
def refine(
    refiner: Annotated[Path, typer.Argument(help="A run's folder, or a .safetensors file of weights.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="A store, or a folder of images (with label files).")],
    out: Annotated[Path, typer.Argument(help="Where the refined images go; must not exist.")],
    resize: Annotated[
        bool,
        typer.Option(
            "--resize", help="Crop and resize a folder's images as 'simgan train' does; labels in pixels break."
        ),
    ] = False,
) -> None:
    """Refine images: store to store or folder to folder, names and labels copied."""
    from simgan_core.checkpoints import load_refiner
    from simgan_core.refine import refine_folder, refine_store

    network = load_refiner(refiner)
    if (source / "store.json").is_file():
        from simgan_core.datasets.store import Store

        if resize:
            raise ValueError(f"--resize found beside the store {source}; expected a folder of images, or no --resize")
        refine_store(network, Store.open(source), out)
    else:
        refine_folder(network, source, out, resize_images=resize)
    typer.echo(str(out))


@evaluate_app.command("gaze")
def evaluate_gaze(
    truth: Annotated[Path, typer.Argument(help=".npz with `pitch_yaw` [..., 2] in radians.")],
    predicted: Annotated[Path, typer.Argument(help=".npz with `predicted` [..., 2] in radians; may be the same file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Mean and median angular error in degrees, share within 7 degrees, and the 95 % interval of the mean."""
    from simgan_core.evaluation.gaze import evaluate_gaze_files

    report = evaluate_gaze_files(truth, predicted)
    print_result(report.to_dict(), as_json)


@evaluate_app.command("hand")
def evaluate_hand(
    truth: Annotated[Path, typer.Argument(help=".npz with `uvd` [frames, joints, 3]: pixel u, pixel v, depth in mm.")],
    predicted: Annotated[
        Path, typer.Argument(help=".npz with `uvd` of the same frames; may be the same file, then `predicted`.")
    ],
    fx: Annotated[float, typer.Option(help="Focal length along u, pixels; default NYU's.")] = 588.03,
    fy: Annotated[float, typer.Option(help="Focal length along v, pixels.")] = 587.07,
    cx: Annotated[float, typer.Option(help="Principal point, u.")] = 320.0,
    cy: Annotated[float, typer.Option(help="Principal point, v.")] = 240.0,
    block: Annotated[
        int, typer.Option(min=1, help="Consecutive frames that the interval keeps together; 1 for unrelated frames.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Mean joint error in mm with its 95 % interval, frames with all joints within d mm, PCK curve, errors by joint."""
    from simgan_core.evaluation.hand import evaluate_hand_files
    from simgan_core.hand_crop import Intrinsics

    report = evaluate_hand_files(truth, predicted, Intrinsics(fx, fy, cx, cy), block)
    print_result(report.to_dict(), as_json)


@app.command()
def reproduce(
    data: Annotated[str, typer.Option(help="embedded (needs nothing), mini or full (need a data root).")] = "embedded",
    profile: Profile = "cpu",
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets; default SIMGAN_DATA_ROOT, else data/.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report, its work in DIR/run; default in reports/ and runs/.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Notebooks, e.g. 07 or 03,07, and what they need.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Number of seeds; default the profile's, of cpu 5 on real eyes and 3 on embedded."),
    ] = None,
    ablation_stop: Annotated[
        int | None,
        typer.Option(
            min=1, help="Which of 02's stops (cpu: three) ends the trainings of 03 to 05; default the profile's."
        ),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Trainings side by side; default by cores or GPU.")] = None,
) -> None:
    """Run the notebooks from data to scorecard and write a report; the same command goes on after an interruption."""
    from simgan_core import reproduce as workflow

    planned = workflow.plan(
        data, profile, data_root=data_root, out=out, only=only, seeds=seeds, ablation_stop=ablation_stop, jobs=jobs
    )
    typer.echo(f"work in {planned.run.path}: {', '.join(workflow.names(planned.steps))}", err=True)
    typer.echo(str(workflow.run_plan(planned)))


@app.command()
def bench(
    profile: Profile = "cpu",
    assets: Annotated[Path | None, typer.Option(help="UnityEyes2 folder; procedural eyes without it.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Eyes to render into a store.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0, help="Time for each of the other figures.")] = 3.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this machine: images/s of the renderers, the refiners, Algorithm 1 and the gaze CNN."""
    from simgan_core import bench as measured
    from simgan_core.profiles import profile as chosen_profile

    results = measured.bench(chosen_profile(profile), assets, count=count, seconds=seconds, device=device)
    print_result(results, as_json)


@app.command()
def compare(
    synthetic: Annotated[Path, typer.Argument(help="A store of renders with landmarks, from 'simgan simulate eyes'.")],
    real: Annotated[Path, typer.Argument(help="A store of real images of the same size; no label of it is read.")],
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the network that compares.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Do framing, head pose and light of renders fit real images? What a refiner cannot mend, the simulator must."""
    from simgan_core.datasets.store import Store
    from simgan_core.evaluation.domain_gap import compare_domains

    gap = compare_domains(Store.open(synthetic), Store.open(real), seed=seed)
    if as_json:
        typer.echo(json.dumps(gap.to_dict(), allow_nan=False))
        return
    typer.echo(gap.table.round(2).to_string())
    typer.echo(f"low-resolution distance {gap.pixel_distance:.1f} grey levels (real to real {gap.pixel_floor:.1f})")


@app.command()
def fit(
    synthetic: Annotated[Path, typer.Argument(help="A store of renders with landmarks, from 'simgan simulate eyes'.")],
    real: Annotated[Path, typer.Argument(help="A store of real images of the same size; no label of it is read.")],
    out: Annotated[Path, typer.Option(help="The ranges to write (.json), for 'simgan simulate eyes --ranges'.")],
    assets: Annotated[Path | None, typer.Option(help="The assets of the renders; default: procedural eyes.")] = None,
    networks: Annotated[int, typer.Option(min=1, help="Networks that compare; two minutes each on a core.")] = 2,
    camera_out: Annotated[
        Path | None, typer.Option(help="Fit blur and grain too: the camera to write (.json), for '... eyes --camera'.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit the simulator's framing, head pose, lids, angle kappa, light and camera to real images, without labels."""
    from simgan_core.evaluation.simulator_fit import fit_stores
    from simgan_core.simulators.camera_file import save_camera
    from simgan_core.simulators.ranges import save_ranges

    if camera_out is not None and camera_out.absolute() == out.absolute():
        raise ValueError(f"--out and --camera-out {out} found; two files expected, one of ranges and one of the camera")
    for path in (out, camera_out):
        if path is not None:
            check_place(path)
    found = fit_stores(synthetic, real, assets, networks=networks, camera=camera_out is not None)
    save_ranges(found.ranges, out)
    if camera_out is not None and found.camera is not None:
        save_camera(found.camera.camera, camera_out)
    print_result(found.to_dict(), as_json)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print numbers as one JSON object, or as aligned lines."""
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
        return
    width = max(map(len, result))
    for name, value in result.items():
        typer.echo(f"{name:<{width}}  {_readable(value)}")


def _readable(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_readable, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the command line; errors that the user can mend are messages, not tracebacks."""
    try:
        app()
    except ModuleNotFoundError as error:
        if (error.name or "simgan_core").startswith("simgan_core"):
            raise
        remedy = "pip install 'simgan-core[workflow,study,lab]' brings what notebooks, reports and studies need"
        print(f"simgan: {error}; {remedy}", file=sys.stderr)
        raise SystemExit(1) from None
    except (ValueError, OSError, RuntimeError) as error:
        # Defects of the program itself (TypeError, AssertionError, ...) keep their traceback.
        print(f"simgan: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
