"""Run one notebook headless with papermill: parameters checked first, the executed copy kept as notebook and as HTML.

    python -m simgan_core.execution NOTEBOOK EXECUTED.ipynb [--threads N] [--workers N] [--made-with FINGERPRINT]
                                    [-p NAME VALUE]...

papermill only warns about a parameter that a notebook does not have, and lets the notebook's own defaults win where the
`parameters` tag is missing; both are errors here. The Snakefile calls this once per job.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simgan_core.processor import WORKERS
from simgan_core.provenance import commit, device, write_json
from simgan_core.run_folder import settings_digest

MAX_PARAMETERS = 4
TRACE = ".execution.json"
"""Ends the name of the file, beside an executed notebook, that says when, where and with what it ran."""
PATIENCE_S = 300
"""Seconds that a kernel may take to start, or to hand over what a cell has shown."""


class NotebookError(RuntimeError):
    """A notebook cannot be run as it is, or stopped with an error."""


def parameter_names(notebook: Path) -> tuple[str, ...]:
    """Names in the cell tagged `parameters`.

    Raises:
        NotebookError: no such cell or several, or more parameters than a notebook may have.

    """
    import nbformat
    import papermill

    if not notebook.is_file():
        raise NotebookError(f"{notebook} does not exist; expected a notebook. Restore it from git.")
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise NotebookError(
            f"{notebook} has {len(tagged)} cells tagged 'parameters'; expected one. Tag the cell with the defaults."
        )
    names = tuple(papermill.inspect_notebook(str(notebook)))
    if len(names) > MAX_PARAMETERS:
        raise NotebookError(f"{notebook} has {len(names)} parameters; expected at most {MAX_PARAMETERS}: {names}")
    return names


def check_parameters(notebook: Path, names: Sequence[str]) -> None:
    """Make sure that `notebook` takes every parameter in `names`.

    Raises:
        NotebookError: naming those that it lacks.

    """
    known = parameter_names(notebook)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise NotebookError(
            f"{notebook} has no parameter {', '.join(unknown)}; it has {', '.join(known)}. "
            "Rename it in the cell tagged 'parameters'."
        )


def execute(
    notebook: Path, executed: Path, parameters: Mapping[str, object], *, threads: int | None = None,
    workers: int | None = None, made_with: str | None = None,
) -> float:  # fmt: skip
    """Run `notebook`; write the executed copy, its HTML and `execution.json` (seconds, threads). Returns the seconds.

    The kernel itself computes with `threads` threads, and starts `workers` processes side by side, of one thread each.
    `made_with`, a fingerprint of all that decides the result, is kept in `execution.json`.

    Raises:
        NotebookError: the notebook stopped; the executed copy, with the traceback, is kept under the name that the
            message gives.

    """
    import papermill

    check_parameters(notebook, list(parameters))
    _limit_threads(threads, workers)
    os.environ["SIMGAN_HEADLESS"] = "1"  # `simgan_core.playground` then shows static figures
    executed.parent.mkdir(parents=True, exist_ok=True)
    running = executed.with_suffix(".running.ipynb")
    started, clock = time.time(), time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="simgan-") as sockets:
            papermill.execute_notebook(
                str(notebook), str(running), parameters=dict(parameters), progress_bar=False, cwd=str(executed.parent),
                kernel_name="python3", config=_private_kernel(Path(sockets)),
                # A busy machine keeps a kernel waiting for longer than papermill's 4 and 60 seconds.
                iopub_timeout=PATIENCE_S, start_timeout=PATIENCE_S,
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        failed = executed.with_suffix(".failed.ipynb")
        running.replace(failed)
        raise NotebookError(f"{notebook.name} stopped: {error.ename}: {error.evalue}\nTraceback in {failed}") from error
    seconds = time.perf_counter() - clock
    write_html(running, executed.with_suffix(".html"), title=notebook.stem)
    trace: dict[str, object] = {
        "wall_s": round(seconds, 1),
        "started": round(started),
        "threads": threads,
        "workers": workers or threads,
        "commit": commit(),
    }
    trace["device"] = device()
    if made_with is not None:
        trace["made_with"] = made_with
    if parameters.get("RUN_DIR"):
        run = Path(str(parameters["RUN_DIR"]))
        if digest := settings_digest(run, notebook.stem):
            trace["settings"] = digest
        _drop_older(run / notebook.stem / executed.stem.removeprefix(notebook.stem).lstrip("-"), started)
    write_json(executed.with_suffix(TRACE), trace)
    executed.with_suffix(".failed.ipynb").unlink(missing_ok=True)
    running.replace(executed)
    return seconds


def _drop_older(results: Path, started: float) -> None:
    """Remove the figures and tables of an earlier execution that this one did not write: a report would show them."""
    for kind in ("figures", "tables", "local"):
        for file in (results / kind).glob("*"):
            if file.is_file() and file.stat().st_mtime < started:
                file.unlink()


def _private_kernel(sockets: Path) -> Any:
    """Talk to the kernel over sockets in a private folder: TCP ports are open to all users of a machine."""
    from traitlets.config import Config

    return Config({"KernelManager": {"transport": "ipc", "connection_file": str(sockets / "kernel.json")}})


def _limit_threads(threads: int | None, workers: int | None) -> None:
    """The kernel inherits these; without them, jobs side by side slow each other to a crawl on small kernels."""
    if workers is not None:
        os.environ[WORKERS] = str(workers)
    if threads is None:
        return
    count = str(threads)
    os.environ |= {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count}
    # Large activations would otherwise be returned to the system and faulted in again at every step.
    os.environ |= {"MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_MMAP_THRESHOLD_": "8589934592"}


def write_html(notebook: Path, html: Path, *, title: str) -> Path:
    """Export an executed notebook as one HTML page that needs no network."""
    import nbformat
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", embed_images=True)
    exporter.mathjax_url = ""
    exporter.require_js_url = ""
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    cells = nbformat.read(notebook, as_version=4)
    body, _ = exporter.from_notebook_node(cells, resources={"metadata": {"name": title}})
    partial = html.with_suffix(".partial")
    partial.write_text(body, encoding="utf-8")
    partial.replace(html)
    return html


def _value(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m simgan_core.execution`."""
    parser = argparse.ArgumentParser(prog="python -m simgan_core.execution", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("executed", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--made-with", default=None)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    options = parser.parse_args(arguments)
    parameters = {name: _value(value) for name, value in options.parameters}
    print(f"{options.executed.stem}: running", flush=True)
    try:
        seconds = execute(
            options.notebook.resolve(), options.executed.resolve(), parameters, threads=options.threads,
            workers=options.workers, made_with=options.made_with,
        )  # fmt: skip
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.executed.stem}: {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
