"""Where a result came from: commit, package versions, device, fingerprint of the code; and atomic JSON files.

Every file that a run leaves behind can be traced by what is collected here. Nothing names the machine, its users or
its folders, so that a report can be published as the run wrote it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from simgan_core.processor import cpu_has_bf16, cpu_model, usable_cores

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent
PACKAGES = ("torch", "numpy", "scipy", "pandas", "opencv-python-headless", "lightning-fabric", "safetensors",
            "snakemake", "papermill")  # fmt: skip


def write_json(path: Path, content: object) -> Path:
    """Write `content` as indented JSON, atomically: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is not JSON; the message names it.

    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))  # editors of Windows put a mark before it
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is not JSON ({error}). Correct it; what a run wrote may be deleted instead."
        ) from error


def commit() -> str | None:
    """Hash of the commit, with '+changes' when code or notebooks differ from it; None outside a repository.

    A package that is installed somewhere below another project's repository is none of that project's commits.
    """
    top, revision = _git("rev-parse", "--show-toplevel"), _git("rev-parse", "HEAD")
    if top is None or revision is None or Path(top).resolve() != REPOSITORY:
        return None
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "simgan_core", "notebooks", "workflow")
    return revision + ("+changes" if changed else "")


def home() -> Path:
    """Where `data/`, `runs/` and `reports/` lie: the repository, or the working directory of an installed package."""
    return REPOSITORY if (REPOSITORY / "notebooks").is_dir() else Path.cwd()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@cache
def device() -> dict[str, object]:
    """The hardware that computes: processor and cores, whether it has bf16, and the GPU's name where there is one."""
    found: dict[str, object] = {"cpu": cpu_model(), "cores": usable_cores(), "bf16": cpu_has_bf16()}
    if "torch" not in sys.modules and not Path("/dev/nvidiactl").exists():
        return found  # importing torch takes seconds
    import torch

    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(0), "gpus": torch.cuda.device_count()}
    return found


def code_fingerprint(source: Path) -> str:
    """SHA-256 over `source` (module or notebook) and all modules of this package that it imports, directly or not.

    A rerun compares it with the one a result was made with: an edit to the simulator makes the stores out of date, an
    edit to the scorecard's template does not.
    """
    files = sorted({source.resolve(), *_reachable(source)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _reachable(source: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = list(_imported(source))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting.extend(_imported(file))
    return found


def _imported(source: Path) -> Iterator[Path]:
    for name in _import_names(_python(source)):
        yield from _files(name)


def _python(source: Path) -> str:
    if source.suffix != ".ipynb":
        return source.read_text(encoding="utf-8")
    cells = read_json(source)["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in [*cell["source"], "\n"]]
    text = "".join(lines)
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("%", "!")))


def _import_names(text: str) -> Iterable[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files(name: str) -> Iterator[Path]:
    parts = name.split(".")
    if parts[0] != PACKAGE.name:
        return
    base = REPOSITORY.joinpath(*parts)
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            yield file
