"""Store: a folder of uint8 image shards (.npy, memory-mapped), Parquet annotations and JSON provenance.

Layout: `images-00000.npy` [rows, C, H, W] uint8, `annotations-00000.parquet` (absent where there are no columns), ...,
`provenance.json` (how it was made) and `store.json` (sizes, rows and sha256 of every file). 1.2 million eyes of 35x55
are 2.3 GB, read at over a million random images a second. `StoreWriter` writes it, `Store` reads it, `Batches` are the
minibatches of Algorithm 1. B images, C channels (1 or 3), H rows, W columns; sizes (H, W).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.errors import DataError
from simgan_core.datasets.writer import FORMAT, MANIFEST, PROVENANCE, StoreWriter, UInt8, sha256
from simgan_core.images import to_float

DAMAGED = "the store is damaged: prepare it again"

__all__ = ["Batches", "Store", "StoreWriter", "open_images"]


class Store:
    """A finished store, opened for reading. Images are memory-mapped: opening is instant, nothing is kept in memory."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], provenance: dict[str, Any]) -> None:
        self.path = path
        self.provenance = provenance
        self.size: tuple[int, int] = (int(manifest["size"][0]), int(manifest["size"][1]))
        self.channels = int(manifest["channels"])
        self.columns: list[str] = list(manifest["columns"])
        self._manifest = manifest
        self._shards: list[dict[str, Any]] = manifest["shards"]
        self._starts = np.cumsum([0] + [shard["rows"] for shard in self._shards])
        # Copy on write: arrays count as writable, which torch wants, and the files can never be changed through them.
        self._images = [np.load(path / shard["images"]["file"], mmap_mode="c") for shard in self._shards]

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open the store at `path`. Raises DataError if it is none, or if a file is missing or of another length."""
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise DataError(
                path,
                found="a folder without store.json" if path.is_dir() else "no such folder",
                expected="a store",
                remedy="make one with 'simgan data prepare', 'simgan simulate eyes' or, of a folder of images, "
                "'simgan data import'",
            )
        manifest = _json_object(path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise DataError(
                path / MANIFEST,
                found=f"format {manifest.get('format')!r}",
                expected=FORMAT,
                remedy="prepare the store again with this version",
            )
        for entry in _entries(manifest):
            length = (path / entry["file"]).stat().st_size if (path / entry["file"]).is_file() else None
            if length != entry["bytes"]:
                raise DataError(
                    path / entry["file"],
                    found="no file" if length is None else f"{length} bytes",
                    expected=f"{entry['bytes']} bytes",
                    remedy=DAMAGED,
                )
        return cls(path, manifest, _json_object(path / PROVENANCE))

    def verify(self) -> None:
        """Compare every file with its sha256. Raises DataError that names the first damaged file."""
        provenance = {"file": PROVENANCE, "sha256": self._manifest["provenance_sha256"]}
        for entry in [provenance, *_entries(self._manifest)]:
            digest = sha256(self.path / entry["file"])
            if digest != entry["sha256"]:
                raise DataError(
                    self.path / entry["file"],
                    found=f"sha256 {digest[:12]}…",
                    expected=f"{entry['sha256'][:12]}…",
                    remedy="the file was changed after it was written: prepare the store again",
                )

    @property
    def checksum(self) -> str:
        """sha256 over the checksums of images and annotations: equal for equal ones.

        Where they came from does not count: a provenance holds dates of files, and a copied folder is no other data.
        """
        digests = [entry["sha256"] for entry in _entries(self._manifest)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def images(self, indices: Sequence[int] | NDArray[np.integer[Any]] | slice | None = None) -> UInt8:
        """Images uint8 [B, C, H, W] in the order of `indices`; a slice within one shard is mapped, not copied.

        A mask of one truth value per image takes those images. Raises IndexError beyond the store, ValueError for a
        mask of another length or numbers that are no integers.
        """
        if indices is None:
            indices = slice(None)
        if isinstance(indices, slice):
            start, stop, step = indices.indices(len(self))
            first = int(np.searchsorted(self._starts, start, side="right")) - 1
            if step == 1 and start < stop <= self._starts[first + 1]:
                offset = int(self._starts[first])
                return np.asarray(self._images[first][start - offset : stop - offset])
            indices = np.arange(start, stop, step)
        rows = _rows(indices, len(self))
        if len(rows) and (rows.min() < -len(self) or rows.max() >= len(self)):
            raise IndexError(f"index {rows.min()} or {rows.max()} found; the store has {len(self)} images")
        rows = np.where(rows < 0, rows + len(self), rows)
        if len(self._images) == 1:
            return np.asarray(self._images[0][rows])
        out = np.empty((len(rows), self.channels, *self.size), np.uint8)
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        for k in np.unique(shard):
            here = shard == k
            out[here] = self._images[k][rows[here] - self._starts[k]]
        return out

    def spread(self, limit: int) -> NDArray[np.int64]:
        """Rows of at most `limit` images, evenly spread: a store may hold one person, day or video after the other."""
        return spread(len(self), limit)

    def annotations(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The annotations, one row per image; `columns` limits what is read. Raises DataError on an unknown column."""
        wanted = self.columns if columns is None else list(columns)
        unknown = [name for name in wanted if name not in self.columns]
        if unknown:
            raise DataError(
                self.path,
                found=f"columns {self.columns}",
                expected=", ".join(unknown),
                remedy="use a store that has these annotations",
            )
        if not wanted:
            return pd.DataFrame(index=pd.RangeIndex(len(self)))
        tables = [pq.read_table(self.path / s["annotations"]["file"], columns=wanted) for s in self._shards]
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame[wanted]

    @property
    def has_labels(self) -> bool:
        """Whether there is a gaze label (columns pitch and yaw)."""
        return "pitch" in self.columns and "yaw" in self.columns

    def pitch_yaw(self) -> NDArray[np.float32]:
        """Gaze labels float32 [N, 2], radians. Raises DataError if the store has none."""
        if not self.has_labels:
            raise DataError(
                self.path,
                found=f"no gaze labels (columns {self.columns})",
                expected="columns pitch and yaw",
                remedy="an unlabelled store can be refined towards; an estimator needs a labelled one, of 'simgan "
                "simulate eyes' or of a folder with labels.csv (data/README.md)",
            )
        return self.annotations(["pitch", "yaw"]).to_numpy(np.float32)

    def on_device(self, device: torch.device | str = "cpu", limit_gb: float = 8.0) -> Tensor | None:
        """All images as one uint8 tensor [N, C, H, W] on `device`, or None where they would not fit in `limit_gb`.

        On the CPU a store of one shard is mapped, not copied. On CUDA at most half of the free memory is taken.
        """
        device = torch.device(device)
        needed = len(self) * self.channels * self.size[0] * self.size[1]
        limit = limit_gb * 1e9
        if device.type == "cuda":
            limit = min(limit, torch.cuda.mem_get_info(device)[0] / 2)
        if needed > limit:
            return None
        return torch.from_numpy(self.images()).to(device)


def spread(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of `count` numbers from 0, evenly spread."""
    return np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64)


def _rows(indices: Sequence[int] | NDArray[Any], count: int) -> NDArray[np.int64]:
    """Row numbers of `indices`: integers, or a mask of one truth value for each of `count` images."""
    array = np.asarray(indices).reshape(-1)
    if array.dtype == bool:
        if len(array) != count:
            raise ValueError(f"a mask of {len(array)} found; expected one truth value for each of {count} images")
        return np.flatnonzero(array)
    if len(array) and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"indices of {array.dtype} found; expected integers or a mask of truth values")
    return array.astype(np.int64)


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a store; DataError that names it where it is missing or cut."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = "no file" if isinstance(error, FileNotFoundError) else f"no JSON ({error})"
        raise DataError(path, found=found, expected="a JSON object", remedy=DAMAGED) from error
    if not isinstance(content, dict):
        raise DataError(path, found=type(content).__name__, expected="a JSON object", remedy=DAMAGED)
    return content


def _entries(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for shard in manifest["shards"]:
        yield shard["images"]
        if "annotations" in shard:
            yield shard["annotations"]


class Batches(Iterator[Tensor]):
    """Endless shuffled batches float [-1, 1] [batch, C, H, W] on `device`; each image once per epoch, in a new order.

    Batches run on over the end of an epoch, so all have the same size. The order of an epoch follows from (seed, epoch)
    alone, so `state_dict` is three numbers and a resumed run sees the same images. `indices` limits the images used.
    The whole set is kept on the device where it fits (`limit_gb`), otherwise batches are read from the memory map.
    """

    def __init__(
        self,
        store: Store,
        batch: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        indices: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        limit_gb: float = 8.0,
    ) -> None:
        self.store, self.batch, self.seed, self.device = store, batch, seed, torch.device(device)
        self.rows = np.arange(len(store)) if indices is None else _rows(indices, len(store))
        if batch < 1 or len(self.rows) < 1:
            raise ValueError(f"batch {batch} of {len(self.rows)} images found; at least one of each expected")
        self.epoch, self.position = 0, 0
        self._order = self._permutation()
        # A CPU store is mapped in any case; gathering rows through numpy is as fast as through torch.
        self._resident = store.on_device(self.device, limit_gb) if self.device.type != "cpu" else None

    def _permutation(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, self.epoch])
        return self.rows[rng.permutation(len(self.rows))]

    def _take(self) -> NDArray[np.int64]:
        parts: list[NDArray[np.int64]] = []
        missing = self.batch
        while missing:
            if self.position == len(self.rows):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation()
            part = self._order[self.position : self.position + missing]
            self.position += len(part)
            missing -= len(part)
            parts.append(part)
        return np.concatenate(parts)

    def next_with_index(self) -> tuple[Tensor, NDArray[np.int64]]:
        """The next batch and the rows of the store it came from, for what needs the annotations too."""
        rows = self._take()
        if self._resident is not None:
            return to_float(self._resident[torch.from_numpy(rows).to(self.device)]), rows
        images = torch.from_numpy(self.store.images(rows))
        return to_float(images.to(self.device)), rows

    def __next__(self) -> Tensor:
        return self.next_with_index()[0]

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint needs to go on with the next batch."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position, "images": len(self.rows)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after `state`. Raises ValueError if it belongs to another seed or another number of images."""
        found, expected = (state["seed"], state["images"]), (self.seed, len(self.rows))
        if found != expected:
            raise ValueError(
                f"checkpoint of (seed, images) = {found} found; {expected} expected; resume with the same data and seed"
            )
        self.epoch, self.position = int(state["epoch"]), int(state["position"])
        self._order = self._permutation()


def open_images(
    path: Path | str, size: tuple[int, int] = (35, 55), colour: bool = False, cache: Path | None = None
) -> Store:
    """A store, or any adapter's folder prepared into one: UnityEyes output, or a folder of images.

    A folder is prepared into `cache` (default: a folder of this user's temporary files) and reused while its files are
    unchanged. Raises DataError where there are no usable images, or where a store has another size or colour.
    """
    from simgan_core.datasets.open_images import open_images as open_any  # it imports this module

    return open_any(path, size, colour, cache)
