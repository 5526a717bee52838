"""Whatever a user names as images, as a store: a store itself, UnityEyes' output, or any folder of images."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import itertools
import json
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.folder import folder_provenance, prepare_folder
from simgan_core.datasets.store import Store
from simgan_core.datasets.unityeyes import SUFFIXES as UNITYEYES_SUFFIXES
from simgan_core.datasets.unityeyes import prepare_unityeyes, unityeyes_provenance
from simgan_core.datasets.writer import MANIFEST
from simgan_core.locks import alone
from simgan_core.provenance import PACKAGE, code_fingerprint

LOOKED_INTO = 8  # label files, to tell whose they are; one of them may be broken


def open_images(
    path: Path | str,
    size: tuple[int, int] = (35, 55),
    colour: bool = False,
    cache: Path | None = None,
    labels: Sequence[str] | None = None,
) -> Store:
    """A store, or a folder prepared into one of that size.

    `labels` names the columns of a folder's `labels.csv` that matter, () none of them; by default all must be sound.
    UnityEyes' folders (its JSON beside each image) are cropped and equalised, other folders are cropped to the aspect
    ratio and resized. Their store is kept in `cache` (default: a folder of this user's temporary files) and reused
    while the files and the code that reads them are unchanged; a damaged one is made again. Processes that want the
    same one wait for the first of them. Raises DataError where there are no usable images, or where a store has another
    size or colour.
    """
    path = Path(path)
    if (path / MANIFEST).is_file():
        return _checked(Store.open(path), size, colour)
    if not path.is_dir():
        remedy = "name a store, or a folder that holds the image files themselves"
        raise DataError(path, found="no such folder", expected="a store or a folder of images", remedy=remedy)
    options: dict[str, Any] = {"size": size, "colour": colour}
    rendered = is_unityeyes(path)
    if rendered:
        provenance = unityeyes_provenance(path, **options, crop_px=None, equalise=True)
    else:
        options["labels"] = labels
        provenance = folder_provenance(path, **options, rule="crop", equalise=False)
    code = code_fingerprint(PACKAGE / "datasets" / ("unityeyes.py" if rendered else "folder.py"))
    key = hashlib.sha256(json.dumps([str(path.resolve()), code, provenance], sort_keys=True).encode()).hexdigest()
    kept = (cache or _own_temporary_folder()) / f"{path.name}-{key[:16]}"
    with alone(kept.parent / f"{kept.name}.lock"):
        if (kept / MANIFEST).is_file():
            with contextlib.suppress(DataError):
                return Store.open(kept)
        make = prepare_unityeyes if rendered else prepare_folder
        return make(path, kept, **options, overwrite=True)


def is_unityeyes(folder: Path) -> bool:
    """Whether JSON files in UnityEyes' schema lie beside the images of the folder, or of its `imgs/`.

    The first few are looked into, as a user's own labels may be JSON files too; those are left alone.
    """
    place = folder / "imgs" if (folder / "imgs").is_dir() else folder
    images = {path.stem for path in place.glob("[!.]*") if path.suffix.lower() in UNITYEYES_SUFFIXES}
    labels = (path for path in sorted(place.glob("[!.]*.json")) if path.stem in images)
    return any(b'"eye_details"' in path.read_bytes() for path in itertools.islice(labels, LOOKED_INTO))


def _own_temporary_folder() -> Path:
    """A folder that nobody else can read or replace: pictures of people lie there. DataError where somebody else's."""
    folder = Path(tempfile.gettempdir()) / f"simgan-{_user()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise DataError(
            folder,
            found="a place that is not yours, or that others can enter",
            expected="a folder of your own with mode 700",
            remedy="remove it or change its mode, or let TMPDIR name another place for temporary files",
        )
    return folder


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return "user"


def _checked(store: Store, size: tuple[int, int], colour: bool) -> Store:
    channels = 3 if colour else 1
    if store.size != size or store.channels != channels:
        raise DataError(
            store.path,
            found=f"images of {store.size[0]} x {store.size[1]} with {store.channels} channel(s)",
            expected=f"{size[0]} x {size[1]} with {channels}",
            remedy="prepare the store again so, or say --colour, or a size where the command has one (data.size)",
        )
    return store
