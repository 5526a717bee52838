"""What a fresh clone relies on: metadata, lock, conda environment and CI agree with one another."""

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = {
    name: [Requirement(text) for text in texts] for name, texts in PROJECT["optional-dependencies"].items()
}  # fmt: skip


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def conda() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "environment.yml").read_text()))


def test_lock_satisfies_every_requirement() -> None:
    versions = locked()
    for requirement in [*REQUIREMENTS, *(one for extra in EXTRAS.values() for one in extra)]:
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not locked; run `make lock`"
        assert requirement.specifier.contains(versions[name]), f"{requirement} against {versions[name]}"


def test_torch_is_pinned_in_the_lock_and_open_in_the_metadata() -> None:
    assert locked()["torch"] == "2.13.0"
    torch = next(requirement for requirement in REQUIREMENTS if requirement.name == "torch")
    assert [torch.specifier.contains(v) for v in ("2.9.1", "2.10.0", "2.13.1", "2.14.0")] == [False, True, True, False]
    python = SpecifierSet(PROJECT["requires-python"])
    assert [python.contains(v) for v in ("3.10", "3.11", "3.13", "3.14")] == [False, True, True, False]


def test_torchvision_is_absent() -> None:
    assert find_spec("torchvision") is None, "torchvision's wheel is a CUDA build and breaks beside a CPU torch"
    assert not {"torchvision", "torchaudio"} & set(locked())


def test_the_lock_names_no_host_and_no_local_version() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--|@ |\+", "\n".join(line for line in text.splitlines() if not line.startswith("#")))


def test_environment_yml_installs_this_package_with_all_extras() -> None:
    environment = conda()
    (pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert "-r requirements.lock" in pip
    (own,) = [line for line in pip if line.startswith("-e ")]
    assert set(re.findall(r"\w+", own.split("[")[1])) == set(EXTRAS)


def test_environment_yml_is_understood_by_conda() -> None:
    rattler = pytest.importorskip("rattler", reason="py-rattler reads conda's specs without conda")
    environment = conda()
    specs = [rattler.MatchSpec(item) for item in environment["dependencies"] if isinstance(item, str)]
    python = next(spec for spec in specs if spec.name.normalized == "python")
    assert "3.11" in str(python.version)
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11.7")
    assert environment["channels"] == ["conda-forge"]


def test_ci_calls_make_test_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    assert "make test" in script.read_text()
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_make_knows_its_targets() -> None:
    for target in ("reproduce", "test", "lab", "readme"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(["make", "-n", "reproduce"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "simgan reproduce --data embedded --profile cpu" in listed


def test_data_sets_can_not_be_committed_by_accident() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    paths = ["data/mpiigaze/p00.npz", "runs/cpu-mini/seed-0/checkpoint.pt", "reports/cpu-mini/notebooks/01_data.html"]
    paths += ["reports/cpu-mini/local/faces.png", "data/unityeyes2/Assets/x.png"]
    done = subprocess.run(["git", "check-ignore", *paths], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == paths
    kept = ["data/README.md", "reports/cpu-mini/index.html", "reports/cpu-mini/figures/07_arms.png"]
    done = subprocess.run(["git", "check-ignore", *kept], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stdout


def test_nothing_of_the_data_sets_is_tracked() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = done.stdout.split()
    assert not [name for name in tracked if name.endswith((".npz", ".mat", ".ipynb.html"))]
    assert not [name for name in tracked if name.startswith("data/") and name != "data/README.md"]
    large = [name for name in tracked if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 300_000]
    assert not large, f"over 300 kB: {large}"


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, simgan_core.cli; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"], "--help must not wait for torch"
