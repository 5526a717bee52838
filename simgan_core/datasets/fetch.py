"""Downloads: `simgan data fetch unityeyes2` brings UnityEyes' public assets (MIT) into the data root.

File by file from a pinned commit, so that an interrupted download goes on where it stopped: a file that is there and
has its checksum is not asked for again, and a file appears only when it is whole. MPIIGaze and NYU are research data
under their own terms: their users fetch them themselves, see data/README.md.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pooch
from requests import RequestException
from tqdm.auto import tqdm

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.unityeyes2_files import COMMIT, REPOSITORY, SHA256, SKINS
from simgan_core.datasets.writer import sha256

URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/"
SMALLEST_SKIN = 512  # pixels; the published skins have 2,048
TIMEOUT_S = 60


def fetch(name: str, root: Path | str, *, url: str = URL, progress: bool = True) -> Path:
    """Bring the data set `name` ('unityeyes2') into `root`/`name` and return that folder.

    Existing files are verified, missing or damaged ones downloaded. Raises ValueError for another name, DataError where
    the server cannot be reached or sends something else; what has arrived stays, and the same command goes on.
    """
    if name != "unityeyes2":
        raise ValueError(
            f"data set {name!r} found; unityeyes2 expected; MPIIGaze and NYU are fetched by their users under their "
            "own terms, see data/README.md"
        )
    folder = Path(root) / name
    names = [*SHA256, *SKINS]
    registry: dict[str, str | None] = {file: SHA256.get(file) for file in names}
    store = pooch.create(
        path=folder,
        base_url=url,
        registry=registry,
        urls={file: url + quote(file) for file in names},
        retry_if_failed=2,
    )
    waiting = [file for file in names if not _is_whole(folder / file, SHA256.get(file))]
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    pooch.get_logger().setLevel("ERROR")  # the bar says what happens, and errors are raised
    for file in tqdm(waiting, desc=name, unit="file", disable=not progress or not waiting):
        (folder / file).unlink(missing_ok=True)  # of a checksum or a form that is wrong
        try:
            store.fetch(file, downloader=downloader)
        except (RequestException, OSError) as error:
            raise _unreachable(folder, file, url, len(waiting), error) from error
        except ValueError as error:  # pooch's word for another checksum
            raise _wrong(folder / file, "another checksum") from error
        if not _is_whole(folder / file, SHA256.get(file)):
            found = _start(folder / file)
            (folder / file).unlink()
            raise _wrong(folder / file, found)
    return folder


def _is_whole(path: Path, known: str | None) -> bool:
    """Whether the file is there and has its checksum; a skin, whether it is a whole square picture of enough pixels."""
    if not path.is_file():
        return False
    if known is not None:
        return sha256(path) == known
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not len(data) or b"IEND" not in data[-16:].tobytes():
        return False
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return image is not None and image.shape[0] == image.shape[1] >= SMALLEST_SKIN


def _start(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        return f"{size} bytes beginning with {file.read(40)!r}"


def _unreachable(folder: Path, file: str, url: str, count: int, error: Exception) -> DataError:
    return DataError(
        folder,
        found=f"{type(error).__name__} for {file}, one of {count} files to fetch",
        expected=f"the file from {url}",
        remedy=(
            "check the connection and run the command again, it goes on where it stopped; offline, copy the folder "
            f"Assets of github.com/{REPOSITORY} from another machine into {folder}"
        ),
    )


def _wrong(path: Path, found: str) -> DataError:
    return DataError(
        path,
        found=found,
        expected="the file of the pinned commit" if path.name in {Path(f).name for f in SHA256} else "a whole PNG",
        remedy="run the command again; if it stays, a proxy changes the files or the repository has moved",
    )
