"""The notebooks as a graph, from data to scorecard: plans a run and hands it to Snakemake (`workflow/Snakefile`).

    01_data -> 02_training (one job per seed) -> 03 to 07 -> 09_scorecard -> report
    08_hand_pose (its own data, refiners and seeds) ------> 09_scorecard

A job is out of date when its notebook, the code that it imports, its part of the configuration or its inputs changed.
A killed run goes on where it stopped, at the last checkpoint of a training.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simgan_core.config import Config, to_dict, with_overrides
from simgan_core.execution import TRACE, check_parameters
from simgan_core.locks import LOCK, refused_while_held
from simgan_core.processor import usable_cores
from simgan_core.profiles import profile
from simgan_core.provenance import REPOSITORY, code_fingerprint, home, read_json, write_json
from simgan_core.run_folder import DATA, RunFolder, find_data_root

SNAKEFILE = REPOSITORY / "workflow" / "Snakefile"
NOTEBOOKS = REPOSITORY / "notebooks"
REPORTED = "report.done"
"""In the run's folder: says that the report was written from the results there."""
HANDS = ("hand_mesh/*", "nyu/*.npz", "nyu/crops/*", *(f"{folder}t*/joint_data.mat" for folder in ("", "nyu/", "NYU/")))
READS = {
    "01_data": (
        "mpiigaze/*.npz",
        "unityeyes2/Assets/**/*",
        "[Uu]nity[Ee]yes",
        "[Uu]nity[Ee]yes/imgs",
        *(f"{folder}Data/Normalized/p*/day*.mat" for folder in ("", "MPIIGaze/", "mpiigaze/")),
        *(f"{folder}Evaluation Subset/*/p*.txt" for folder in ("", "MPIIGaze/", "mpiigaze/")),
    ),
    "04_local_vs_global": HANDS,
    "08_hand_pose": HANDS,
}
"""Files of the data root by which a step notices that its data changed; large sets by label files or folder alone."""
PARAMETERS = ("DATA", "PROFILE", "SEED", "RUN_DIR")


@dataclass(frozen=True)
class Step:
    """One notebook in the graph. `per_seed`: it runs once per seed; the others see all seeds at once.

    `ablation`: it sees the first seeds alone (`Config.ablation_seeds`).
    """

    name: str
    needs: tuple[str, ...] = ()
    per_seed: bool = False
    ablation: bool = False

    @property
    def notebook(self) -> Path:
        """The notebook's file."""
        return NOTEBOOKS / f"{self.name}.ipynb"


STEPS: tuple[Step, ...] = (
    Step("01_data"),
    Step("02_training", needs=("01_data",), per_seed=True),
    Step("03_history", needs=("01_data", "02_training"), ablation=True),
    Step("04_local_vs_global", needs=("01_data", "02_training"), ablation=True),
    Step("05_self_regularisation", needs=("01_data", "02_training")),
    Step("06_visual_turing_test", needs=("01_data", "02_training")),
    Step("07_gaze_evaluation", needs=("01_data", "02_training")),
    Step("08_hand_pose", ablation=True),
)
SCORECARD = Step("09_scorecard", needs=tuple(step.name for step in STEPS))


def select(only: str | None) -> tuple[Step, ...]:
    """Steps to run: all, or `only` with what they need; the scorecard always comes last.

    `only` may be a notebook's number ('07') or name, or several with commas between. The scorecard alone reads whatever
    is there.

    Raises:
        ValueError: no such notebook.

    """
    if only is None:
        return (*STEPS, SCORECARD)
    by_name = {step.name: step for step in (*STEPS, SCORECARD)}
    found = [_named(one.strip(), by_name) for one in only.split(",")]
    if found == [SCORECARD]:
        return (Step(SCORECARD.name),)
    wanted = set().union(*(_with_needs(step, by_name) for step in found if step != SCORECARD))
    steps = tuple(step for step in STEPS if step.name in wanted)
    return (*steps, Step(SCORECARD.name, needs=tuple(step.name for step in steps)))


def only(notebooks: Iterable[str]) -> str | None:
    """What `--only` said for a run that left these notebooks: the inverse of `select`, None where it left all."""
    ran = [step for step in STEPS if step.name in set(notebooks)]
    if ran == list(STEPS):
        return None
    by_name = {step.name: step for step in STEPS}
    needed = set().union(*(_with_needs(step, by_name) - {step.name} for step in ran))
    return ",".join(step.name.split("_")[0] for step in ran if step.name not in needed)


def _named(name: str, by_name: dict[str, Step]) -> Step:
    for known, step in by_name.items():
        if name in (known, known.split("_")[0]):
            return step
    raise ValueError(f"no notebook {name!r}; expected one of {', '.join(by_name)}.")


def _with_needs(step: Step, by_name: dict[str, Step]) -> set[str]:
    return {step.name}.union(*(_with_needs(by_name[name], by_name) for name in step.needs))


@dataclass(frozen=True)
class Plan:
    """A run about to start: its folder, where its report goes, its steps, and how many seeds run side by side.

    `notebooks`: how many notebooks with all cores run at once. Most of their time is work in processes side by side,
    but figures, fits and the last training of an odd number leave a core idle, which the other one takes.
    """

    run: RunFolder
    report: Path
    steps: tuple[Step, ...]
    cores: int
    jobs: int
    notebooks: int = 2

    @property
    def threads_per_seed(self) -> int:
        """Threads of a job that runs once per seed, beside the others."""
        return max(1, self.cores // min(self.jobs, len(self.run.seeds)))

    @property
    def threads_per_notebook(self) -> int:
        """Threads of the other jobs' own computing, which has others beside it; their processes use all cores.

        Where threads outnumber cores, each of a small kernel's parts waits for a thread that does not run: a fresh
        discriminator takes seven times as long with two threads beside a busy notebook as with one.
        """
        return max(1, self.cores // self.notebooks)

    def workflow(self) -> dict[str, Any]:
        """What the Snakefile reads, as plain JSON."""
        return {
            "run": str(self.run.path),
            "report": str(self.report),
            "reported": REPORTED,
            "python": sys.executable,
            "data": self.run.data,
            "profile": self.run.config.profile,
            "seeds": list(self.run.seeds),
            "steps": [self._step(step) for step in self.steps],
        }

    def _step(self, step: Step) -> dict[str, Any]:
        return {
            "name": step.name,
            "notebook": str(step.notebook),
            "needs": list(step.needs),
            "reads_seeds": list(self.run.ablation_seeds if step.ablation else self.run.seeds),
            "per_seed": step.per_seed,
            "threads": self.threads_per_seed if step.per_seed else self.threads_per_notebook,
            "workers": self.threads_per_seed if step.per_seed else self.cores,
            "made_with": _made_with(step, self.run),
        }


def _made_with(step: Step, run: RunFolder) -> str:
    """Fingerprint of all that decides a step's result besides its inputs.

    The number of seeds does not decide what one seed does: adding seeds keeps the finished ones, and the ablations.
    Nor does the stop where ablations end decide anything before them.
    """
    config = to_dict(run.config)
    if step.name in ("01_data", "02_training"):
        del config["seeds"], config["ablation_stop"]
    elif step.ablation:
        config["seeds"] = len(run.ablation_seeds)
    parts = [code_fingerprint(step.notebook), json.dumps(config, sort_keys=True), run.data]
    if step.name in READS and run.data != "embedded":
        parts.append(_data_state(run.data_root, READS[step.name]))
    if step.name == "06_visual_turing_test":
        from simgan_core.study.in_run import state

        parts.append(state(run))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _data_state(root: Path, patterns: Iterable[str]) -> str:
    """Names, sizes and dates of the files that a step reads: other data in the same place put it out of date."""
    files = sorted(file for pattern in patterns for file in root.glob(pattern))
    states = [(str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return json.dumps([str(root), states])


def plan(
    data: str = "embedded", profile_name: str = "cpu", *, data_root: Path | None = None, out: Path | None = None,
    only: str | None = None, seeds: int | None = None, ablation_stop: int | None = None, jobs: int | None = None,
) -> Plan:  # fmt: skip
    """Check everything that can be checked without computing; nothing is written.

    Raises:
        ValueError: unknown data, profile or notebook, or no such data root.
        NotebookError: a notebook without `parameters` tag, or without one of the parameters.

    """
    if not NOTEBOOKS.is_dir():
        raise ValueError(
            f"no notebooks at {NOTEBOOKS}: they are in the repository and not in the installed package. Clone it, and "
            "install it there with pip install -e."
        )
    if data not in DATA:
        raise ValueError(f"data {data!r} is not known; expected one of {', '.join(DATA)}.")
    sizes = {"seeds": seeds, "ablation_stop": ablation_stop}
    given = {name: size for name, size in sizes.items() if size is not None}
    config = with_overrides(profile(profile_name, data), given)
    steps = select(only)
    for step in (*STEPS, SCORECARD):
        check_parameters(step.notebook, PARAMETERS)
    root = find_data_root(data_root)
    if data != "embedded" and not root.is_dir():
        raise ValueError(f"data root {root} is not a folder; give --data-root, or set SIMGAN_DATA_ROOT.")
    title = f"{config.profile}-{data}"
    report = (out or home() / "reports" / title).resolve()
    folder = report / "run" if out else home() / "runs" / title
    run = RunFolder(folder.resolve(), data, config, root)
    cores = usable_cores()
    if _has_gpu():  # one training fills it
        return Plan(run, report, steps, cores, jobs or 1, notebooks=1)
    return Plan(run, report, steps, cores, jobs or _default_jobs(cores, config))


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _default_jobs(cores: int, config: Config) -> int:
    """One job per seed up to the cores.

    A few seeds more than cores also run together, one thread each: the system shares the cores out evenly, where a
    second round would leave some of them idle.
    """
    return config.seeds if config.seeds < 2 * cores else cores


def run_plan(plan: Plan) -> Path:
    """Run the plan with Snakemake and return the report's index page.

    Raises:
        RuntimeError: a job failed; Snakemake has printed which, and the notebook's traceback is kept.

    """
    environment = os.environ | {"SIMGAN_DATA_ROOT": str(plan.run.data_root)}
    page = plan.report / "index.html"
    with refused_while_held(plan.run.path / LOCK) as lock:
        workflow = begin(plan)
        if not page.is_file():
            (plan.run.path / REPORTED).unlink(missing_ok=True)
        # Snakemake inherits the lock: where this process alone is killed, the folder stays taken until it ends.
        command, held = snakemake_command(plan, workflow), (lock.fileno(),)
        done = subprocess.run(command, env=environment, check=False, pass_fds=held)
    if done.returncode:
        raise RuntimeError(f"the run stopped; what is finished stays in {plan.run.path}. Run the same command again.")
    return page


def begin(plan: Plan) -> Path:
    """Write the run's settings and what the Snakefile reads, `workflow.json`, whose path is returned."""
    run = plan.run
    RunFolder.create(run.path, data=run.data, config=run.config, data_root=run.data_root)
    workflow = plan.workflow()
    for step in workflow["steps"]:
        _drop_outdated(run.path, step["name"], step["made_with"])
    return write_json(run.path / "workflow.json", workflow)


def _drop_outdated(run: Path, name: str, made_with: str) -> None:
    """Remove a notebook's metrics, of each seed, that other settings or code made: Snakemake then runs it again.

    It remembers by itself what made a file, but by the file's full name: of a run folder that was copied or moved it
    knows nothing, and takes whatever lies there.
    """
    for trace in (run / "notebooks").glob(f"{name}*{TRACE}"):
        if read_json(trace).get("made_with", made_with) != made_with:
            seed = trace.name.removeprefix(name).removesuffix(TRACE).lstrip("-")
            (run / name / seed / "metrics.json").unlink(missing_ok=True)
            (run / REPORTED).unlink(missing_ok=True)


def snakemake_command(plan: Plan, workflow: Path, extra: Sequence[str] = ()) -> list[str]:
    """The command that runs the graph; a cluster user adds `--executor slurm` and the like."""
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(plan.run.path),
        "--configfile", str(workflow), "--cores", str(max(plan.notebooks * plan.cores, plan.jobs)),
        "--resources", f"seed_jobs={plan.jobs}", "--rerun-incomplete", "--nolock", "--quiet", "all", *extra,
    ]  # fmt: skip


def names(steps: Iterable[Step]) -> list[str]:
    """Names of the steps, in order."""
    return [step.name for step in steps]
