"""The graph of notebooks: checked before it runs, resumed after a failure, rerun only where out of date."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from simgan_core import execution, provenance, reproduce
from simgan_core.cli import app
from simgan_core.execution import NotebookError
from simgan_core.locks import LOCK, refused_while_held
from simgan_core.processor import usable_cores
from simgan_core.profiles import profile
from simgan_core.reproduce import Step
from simgan_core.run_folder import RunFolder

PARAMETERS = 'DATA = "embedded"\nPROFILE = "smoke"\nSEED = 0\nRUN_DIR = ""'
BODY = """
import json
from pathlib import Path
out = Path(RUN_DIR) / "{folder}"
out.mkdir(parents=True, exist_ok=True)
for kind in ("figures", "tables"):  # each execution draws one that no other does
    (out / kind).mkdir(exist_ok=True)
    (out / kind / f"{{len(list(out.glob('*.txt')))}}-{{__import__('time').time_ns()}}.dat").write_text(kind)
with (out / "log.txt").open("a") as log:
    log.write(f"{{SEED}}\\n")
(out / "metrics.json").write_text(json.dumps({{"{name}.seed": {{
    "value": SEED, "low": None, "high": None, "unit": "", "seeds": 1, "n": 1}}}}))
(out / "claims.json").write_text("[]")
"""


def notebook(path: Path, code: str, *, parameters: str = PARAMETERS, tag: bool = True) -> Path:
    cells = [nbformat.v4.new_code_cell(parameters), nbformat.v4.new_code_cell(code)]
    if tag:
        cells[0].metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four notebooks in the place of ours, quick ones."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    steps = tuple(step for step in reproduce.STEPS if step.name[:2] in ("01", "02", "07"))
    monkeypatch.setattr(reproduce, "STEPS", steps)
    monkeypatch.setattr(reproduce, "SCORECARD", Step("09_scorecard", needs=tuple(step.name for step in steps)))
    for step in (*reproduce.STEPS, reproduce.SCORECARD):
        place = step.name + ("/seed-{SEED}" if step.per_seed else "")
        code = BODY.format(folder="@@", name=step.name).replace('"@@"', f'f"{place}"')
        notebook(folder / f"{step.name}.ipynb", code)
    monkeypatch.setattr(reproduce, "NOTEBOOKS", folder)
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    return folder


def runs(run: Path) -> dict[str, int]:
    """How often each notebook has run."""
    return {str(log.parent.relative_to(run)): len(log.read_text().split()) for log in run.rglob("log.txt")}


@pytest.mark.slow
def test_a_run_makes_a_report_and_repeats_only_what_is_out_of_date(
    notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "a folder with blanks" / "python"  # as in 'My Drive/simgan/.venv/bin'
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))

    def go(seeds: int = 2, report: Path = tmp_path / "report") -> dict[str, int]:
        plan = reproduce.plan("embedded", "smoke", out=report, seeds=seeds)
        assert reproduce.run_plan(plan).is_file()
        return runs(report / "run")

    # The page of an earlier run, as a fresh clone has it under reports/, must not pass for this run's.
    page = tmp_path / "report" / "index.html"
    page.parent.mkdir()
    page.write_text("an earlier run")
    first = go()
    assert "an earlier run" not in page.read_text()
    assert first == {
        "01_data": 1, "02_training/seed-0": 1, "02_training/seed-1": 1, "07_gaze_evaluation": 1, "09_scorecard": 1,
    }  # fmt: skip
    wall = json.loads((tmp_path / "report/provenance.json").read_text())["wall_s"]
    trained = {"02_training-seed-0", "02_training-seed-1"}
    assert set(wall) == {"01_data", *trained, "07_gaze_evaluation", "09_scorecard"}
    assert (tmp_path / "report/notebooks/07_gaze_evaluation.html").stat().st_size > 10_000
    page.unlink()
    assert go() == first, "nothing was out of date but the page"
    assert page.is_file()

    # One seed more trains that seed and compares again; the finished seeds are kept. An edit runs a notebook again.
    file = notebooks / "09_scorecard.ipynb"
    file.write_text(file.read_text().replace("import json", "import json, os"))
    again = {"02_training/seed-2": 1, "07_gaze_evaluation": 2, "09_scorecard": 2}
    assert go(seeds=3) == first | again
    for place in ("07_gaze_evaluation", "02_training/seed-0", "09_scorecard"):
        for kind in ("figures", "tables"):
            assert len(list((tmp_path / "report/run" / place / kind).iterdir())) == 1, "the last execution's alone"

    # In a folder that was moved Snakemake knows no longer what made a file.
    (tmp_path / "report").rename(tmp_path / "moved")
    assert go(seeds=3, report=tmp_path / "moved") == first | again, "nothing was out of date"
    fewer = {"07_gaze_evaluation": 3, "09_scorecard": 3}
    assert go(seeds=2, report=tmp_path / "moved") == first | again | fewer


@pytest.mark.slow
def test_a_failed_notebook_is_reported_kept_and_resumed(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (notebooks / "02_training.ipynb").read_text()
    (notebooks / "02_training.ipynb").write_text(whole.replace("import json", "1 / 0", 1))
    plan = reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=1, only="02")
    with pytest.raises(RuntimeError, match="Run the same command again"):
        reproduce.run_plan(plan)
    assert "02_training.ipynb stopped: ZeroDivisionError" in capfd.readouterr().err
    run = tmp_path / "report" / "run"
    assert "ZeroDivisionError" in (run / "notebooks/02_training-seed-0.failed.ipynb").read_text()
    assert not (tmp_path / "report/index.html").exists()

    (notebooks / "02_training.ipynb").write_text(whole)
    reproduce.run_plan(reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=1, only="02"))
    assert runs(run) == {"01_data": 1, "02_training/seed-0": 1, "09_scorecard": 1}
    assert not (run / "notebooks/02_training-seed-0.failed.ipynb").exists()


def test_only_takes_a_notebook_with_what_it_needs() -> None:
    assert reproduce.names(reproduce.select("02")) == ["01_data", "02_training", "09_scorecard"]
    gaze = ["01_data", "02_training", "07_gaze_evaluation", "09_scorecard"]
    assert reproduce.names(reproduce.select("07_gaze_evaluation")) == gaze
    assert reproduce.names(reproduce.select("08")) == ["08_hand_pose", "09_scorecard"]
    assert reproduce.names(reproduce.select("07, 08")) == [*gaze[:-1], "08_hand_pose", "09_scorecard"]
    ablations = {"03_history", "04_local_vs_global", "05_self_regularisation"}
    assert set(reproduce.names(reproduce.select(None))) == {*gaze, *ablations, "06_visual_turing_test", "08_hand_pose"}
    assert reproduce.select("09") == (Step("09_scorecard"),)
    with pytest.raises(ValueError, match=r"no notebook '10'; expected one of 01_data"):
        reproduce.select("10")


@pytest.mark.parametrize("option", ["01", "02", "07", "03,07", "05,06,08", None])
def test_a_report_names_the_option_that_made_its_notebooks(option: str | None) -> None:
    assert reproduce.only(reproduce.names(reproduce.select(option))) == option


def break_tag(folder: Path) -> None:
    notebook(folder / "07_gaze_evaluation.ipynb", "pass", tag=False)


def break_name(folder: Path) -> None:
    notebook(folder / "07_gaze_evaluation.ipynb", "pass", parameters=PARAMETERS.replace("RUN_DIR", "RUN_FOLDER"))


def break_number(folder: Path) -> None:
    notebook(folder / "07_gaze_evaluation.ipynb", "pass", parameters=PARAMETERS + "\nSTEPS = 3")


def break_file(folder: Path) -> None:
    (folder / "07_gaze_evaluation.ipynb").unlink()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_tag, "0 cells tagged 'parameters'; expected one"),
        (break_name, "has no parameter RUN_DIR; it has DATA, PROFILE, SEED, RUN_FOLDER"),
        (break_number, "has 5 parameters; expected at most 4"),
        (break_file, "does not exist"),
    ],
)
def test_notebooks_are_checked_before_anything_runs(
    notebooks: Path, tmp_path: Path, break_it: Callable[[Path], None], message: str
) -> None:
    break_it(notebooks)
    with pytest.raises(NotebookError, match=message):
        reproduce.plan("embedded", "smoke", out=tmp_path / "report", only="01")
    assert not (tmp_path / "report").exists(), "something was written"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "imagined"}, "data 'imagined' is not known; expected one of embedded, mini, full"),
        ({"profile_name": "gpus"}, "profile 'gpus' is not known"),
        ({"data": "mini", "data_root": Path("/nowhere/at/all")}, "data root /nowhere/at/all is not a folder"),
        ({"seeds": 0}, "seeds is 0; expected 1 or more"),
        ({"ablation_stop": 4}, "ablation_stop is 4; expected 1 to 3"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce.plan(**({"out": tmp_path / "report"} | arguments))  # type: ignore[arg-type]
    assert not (tmp_path / "report").exists()


def test_more_seeds_leave_ablations_and_hands_as_they_are(tmp_path: Path) -> None:
    def made_with(seeds: int) -> dict[str, str]:
        plan = reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=seeds)
        assert plan.run.ablation_seeds == plan.run.seeds[:3]
        return {step["name"]: step["made_with"] for step in plan.workflow()["steps"]}

    def read(seeds: int) -> list[int]:
        plan = reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=seeds)
        return next(step["reads_seeds"] for step in plan.workflow()["steps"] if step["name"] == "03_history")

    assert read(8) == read(3) == [0, 1, 2], "an ablation waits for refiners that it does not read"
    two, three, eight = (made_with(seeds) for seeds in (2, 3, 8))
    ablations = {"03_history", "04_local_vs_global", "08_hand_pose"}
    assert {name for name in three if three[name] == eight[name]} == {"01_data", "02_training", *ablations}
    assert all(two[name] != three[name] for name in ablations), "up to that number they follow the run's"


def test_a_run_remembers_the_data_root_that_it_was_opened_with(tmp_path: Path) -> None:
    for root in (tmp_path / "first", tmp_path / "second"):
        root.mkdir()
        opened = RunFolder.open(tmp_path / "run", data="mini", profile_name="smoke", data_root=root)
        assert opened.data_root == root
        assert RunFolder.open(tmp_path / "run", data="mini", profile_name="smoke").data_root == root


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6


def test_jobs_share_the_cores(notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    plan = reproduce.plan("embedded", "smoke", out=tmp_path / "a", seeds=3, jobs=4)
    assert plan.threads_per_seed == 2
    threads = {step["name"]: step["threads"] for step in plan.workflow()["steps"]}
    everything = (*reproduce.STEPS, reproduce.SCORECARD)
    assert threads == {step.name: 4 for step in everything} | {"02_training": 2}
    workers = {step["name"]: step["workers"] for step in plan.workflow()["steps"]}
    assert workers == {step.name: 8 for step in everything} | {"02_training": 2}
    # Two notebooks at once, each with processes on all cores: the one works while the other draws.
    assert _cores_of(reproduce.snakemake_command(plan, tmp_path)) == 16
    monkeypatch.setattr(reproduce, "_has_gpu", lambda: True)
    plan = reproduce.plan("embedded", "smoke", out=tmp_path / "a", seeds=3)
    assert (plan.jobs, _cores_of(reproduce.snakemake_command(plan, tmp_path))) == (1, 8)


def _cores_of(command: list[str]) -> int:
    return int(command[command.index("--cores") + 1])


def test_a_package_below_another_repository_is_none_of_its_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages"
    installed.mkdir()
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    assert provenance.commit() is not None
    monkeypatch.setattr(provenance, "REPOSITORY", installed)
    monkeypatch.chdir(tmp_path)
    assert provenance.commit() is None and provenance.home() == tmp_path, "data and runs where somebody works"
    monkeypatch.setattr(reproduce, "NOTEBOOKS", installed / "notebooks")
    with pytest.raises(ValueError, match="they are in the repository and not in the installed package"):
        reproduce.plan("embedded", "smoke")


def test_two_runs_in_one_folder_exclude_each_other(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    held = refused_while_held
    with held(lock), pytest.raises(RuntimeError, match="another run works in"), held(lock):
        pass
    with held(lock):
        pass  # released


def test_other_data_in_the_same_place_make_the_stores_out_of_date(notebooks: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "mpiigaze").mkdir(parents=True)
    (root / "mpiigaze/p00.npz").write_bytes(b"one half")

    def made_with() -> dict[str, str]:
        plan = reproduce.plan("mini", "smoke", data_root=root, out=tmp_path / "report")
        return {step["name"]: step["made_with"] for step in plan.workflow()["steps"]}

    before = made_with()
    assert made_with() == before
    (root / "mpiigaze/p00.npz").write_bytes(b"the other half")
    after = made_with()
    assert {name for name in before if before[name] != after[name]} == {"01_data"}


def test_other_hands_in_the_same_place_are_noticed(tmp_path: Path) -> None:
    step, root = Step("08_hand_pose"), tmp_path / "data"
    (root / "hand_mesh").mkdir(parents=True)
    run = RunFolder.create(tmp_path / "run", data="mini", config=profile("smoke"), data_root=root)
    before = reproduce._made_with(step, run)
    (root / "hand_mesh/hand.npz").write_bytes(b"a hand")
    assert reproduce._made_with(step, run) != before


@pytest.mark.parametrize("file", ["nyu/train/joint_data.mat", "NYU/test/joint_data.mat", "train/joint_data.mat"])
def test_other_recordings_of_hands_are_noticed_by_both_notebooks(tmp_path: Path, file: str) -> None:
    root = tmp_path / "data"
    (root / file).parent.mkdir(parents=True)
    run = RunFolder.create(tmp_path / "run", data="full", config=profile("smoke"), data_root=root)
    for step in (Step("04_local_vs_global", ablation=True), Step("08_hand_pose")):
        before = reproduce._made_with(step, run)
        (root / file).write_bytes(step.name.encode())
        assert reproduce._made_with(step, run) != before


def test_a_folder_serves_one_kind_of_run(tmp_path: Path) -> None:
    RunFolder.open(tmp_path / "run", data="embedded", profile_name="smoke")
    with pytest.raises(ValueError, match="holds a run of profile 'smoke' on data 'embedded'"):
        RunFolder.open(tmp_path / "run", data="embedded", profile_name="cpu")
    with pytest.raises(ValueError, match="DATA is 'nothing'"):
        RunFolder.open(tmp_path / "new", data="nothing", profile_name="cpu")


def test_the_fingerprint_follows_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "simgan_core"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from simgan_core import b\n")
    (package / "b.py").write_text("def f():\n    import simgan_core.c\n")
    (package / "c.py").write_text("")
    (package / "unrelated.py").write_text("")
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    file = notebook(tmp_path / "x.ipynb", "%matplotlib inline\nimport simgan_core.a")
    before = provenance.code_fingerprint(file)
    (package / "unrelated.py").write_text("x = 1")
    assert provenance.code_fingerprint(file) == before
    (package / "c.py").write_text("x = 1")
    assert provenance.code_fingerprint(file) != before


def test_a_kernel_inherits_its_threads(tmp_path: Path) -> None:
    found = "import torch; from simgan_core.workers import cpu_workers as w; print(torch.get_num_threads(), w(), SEED)"
    file = notebook(tmp_path / "x.ipynb", found)
    command = [sys.executable, "-m", "simgan_core.execution", str(file), str(tmp_path / "out.ipynb")]
    command += ["--threads", "1", "--workers", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "7", "IPYTHONDIR": str(tmp_path / "ipython")}
    subprocess.run([*command, "-p", "SEED", "5"], check=True, env=environment, capture_output=True)
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    assert outputs[0]["text"].strip() == "1 3 5"
    assert execution.parameter_names(file) == ("DATA", "PROFILE", "SEED", "RUN_DIR")


def test_a_refused_run_changes_nothing(notebooks: Path, tmp_path: Path) -> None:
    first = reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=2)
    assert not (tmp_path / "report").exists(), "a plan writes nothing"
    reproduce.begin(first)
    files = {path: path.read_bytes() for path in (tmp_path / "report/run").glob("*.json")}
    assert {path.name for path in files} == {"run.json", "config.json", "workflow.json"}
    second = reproduce.plan("embedded", "smoke", out=tmp_path / "report", seeds=5)
    with refused_while_held(first.run.path / LOCK), pytest.raises(RuntimeError, match="another run works in"):
        reproduce.run_plan(second)
    assert {path: path.read_bytes() for path in files} == files, "the first run's settings"


KILLED = """
import sys
from pathlib import Path
from simgan_core import reproduce
work = "import time; print('at work', flush=True); time.sleep(60)"
reproduce.snakemake_command = lambda *_: [sys.executable, "-c", work]
reproduce.run_plan(reproduce.plan("embedded", "smoke", out=Path(sys.argv[1]), seeds=1))
"""


def test_the_folder_stays_taken_while_snakemake_outlives_its_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "report")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "at work\n"
        parent.kill()
        parent.wait()
        lock = tmp_path / "report/run" / LOCK
        with pytest.raises(RuntimeError, match="another run works in"), refused_while_held(lock):
            pass
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


@pytest.mark.parametrize(
    "file",
    [
        "MPIIGaze/Data/Normalized/p03/day02.mat", "Data/Normalized/p03/day01.mat", "UnityEyes/imgs/7.jpg",
        "MPIIGaze/Evaluation Subset/sample list for eye image/p03.txt", "unityeyes2/Assets/Textures/skin.png",
    ],
)  # fmt: skip
def test_further_files_of_large_sets_are_noticed(tmp_path: Path, file: str) -> None:
    root = tmp_path / "data"
    for existing in ("MPIIGaze/Data/Normalized/p00/day02.mat", "UnityEyes/imgs/1.jpg"):
        (root / existing).parent.mkdir(parents=True)
        (root / existing).write_bytes(b"1")
    run = RunFolder.create(tmp_path / "run", data="full", config=profile("smoke"), data_root=root)
    before = reproduce._made_with(Step("01_data"), run)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_bytes(b"1")
    assert reproduce._made_with(Step("01_data"), run) != before


def test_stores_of_a_run_at_work_are_not_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simgan_core.run_folder.home", lambda: tmp_path)
    run = RunFolder.open("", data="embedded", profile_name="smoke")
    prepare = ["data", "prepare", "--profile", "smoke"]
    with refused_while_held(run.path / LOCK):
        refused = CliRunner().invoke(app, prepare)
    assert isinstance(refused.exception, RuntimeError) and "another run works in" in str(refused.exception)
    other = CliRunner().invoke(app, [*prepare, "--seed", "1"])
    assert isinstance(other.exception, ValueError) and "Name another --out" in str(other.exception)
    assert not run.stores.exists()
