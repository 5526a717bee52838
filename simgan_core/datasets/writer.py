"""Writing a store: image shards and annotations spill to disk as they come; the finished folder appears at once.

See `simgan_core.datasets.store` for the layout. B images, C channels (1 or 3), H rows, W columns; sizes (H, W).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from simgan_core.datasets.errors import DataError

UInt8 = NDArray[np.uint8]
FORMAT = "simgan-store-1"
MANIFEST = "store.json"
PROVENANCE = "provenance.json"
ROW_GROUP = 8192  # annotation rows held in memory before they are written


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LARGEST_RAD = {"pitch": np.pi / 2, "yaw": np.pi}


def check_radians(path: Path, name: str, values: NDArray[Any]) -> None:
    """Raise DataError where an angle is beyond what there is in radians: degrees, most likely."""
    if name in LARGEST_RAD and len(values) and np.abs(values).max() > LARGEST_RAD[name] + 1e-6:
        raise DataError(
            path,
            found=f"{name} of up to {np.abs(values).max():.4g}",
            expected=f"radians, {LARGEST_RAD[name]:.4g} at most",
            remedy="convert degrees, e.g. with numpy.deg2rad",
        )


class StoreWriter:
    """Builds a store beside its final place and renames it there on success; after an error nothing is left.

    Use as a context manager. `provenance` must be plain JSON. Rows spill to disk as they come, so memory stays flat.
    Raises FileExistsError before any work if `path` exists and `overwrite` is false.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        size: tuple[int, int],
        channels: int = 1,
        provenance: Mapping[str, object],
        shard_rows: int = 65536,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not overwrite:
            raise FileExistsError(f"{self.path} exists already; remove it, or name another place")
        self.shape = (channels, *size)
        self.provenance = json.loads(json.dumps(dict(provenance)))  # fails now rather than after the work
        self.shard_rows = shard_rows
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._columns: list[str] | None = None
        self._schema: pa.Schema | None = None
        self._shards: list[dict[str, object]] = []
        self._pending: list[pa.Table] = []
        self._file: BinaryIO | None = None
        self._table: pq.ParquetWriter | None = None
        self._rows = 0

    def __enter__(self) -> StoreWriter:
        shutil.rmtree(self.partial, ignore_errors=True)  # of a run that was killed
        self.partial.mkdir(parents=True)
        return self

    def append(self, images: Tensor | UInt8, annotations: Mapping[str, Any] | None = None) -> None:
        """Add B images uint8 [B, C, H, W] and, per column, B values or an array [B, k] (stored as a list of k).

        Every call must bring the same columns. Raises DataError on another shape, type or length, or where pitch or yaw
        is not finite or no angle in radians.
        """
        array: UInt8 = images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        if array.dtype != np.uint8 or array.shape[1:] != self.shape:
            raise DataError(
                self.path,
                found=f"images of {array.dtype} {array.shape}",
                expected=f"uint8 [B, {', '.join(map(str, self.shape))}]",
                remedy="resize and convert them with simgan_core.images before appending",
            )
        table = self._annotation_table(annotations or {}, len(array))
        start = 0
        while start < len(array):
            if self._file is None:
                self._begin_shard()
            stop = min(len(array), start + self.shard_rows - self._rows)
            assert self._file is not None
            self._file.write(np.ascontiguousarray(array[start:stop]).tobytes())
            self._rows += stop - start
            if self._columns:
                self._pending.append(table.slice(start, stop - start))
                self._write_annotations(ROW_GROUP)
            start = stop
            if self._rows == self.shard_rows:
                self._end_shard()

    def _annotation_table(self, annotations: Mapping[str, Any], rows: int) -> pa.Table:
        names = list(annotations)
        if self._columns is None:
            self._columns = names
        if set(names) != set(self._columns):
            raise DataError(
                self.path,
                found=f"columns {sorted(names)}",
                expected=f"{sorted(self._columns)}, as in the first batch",
                remedy="append the same columns every time",
            )
        arrays = []
        for name in self._columns:
            values = np.asarray(annotations[name])
            if len(values) != rows:
                raise DataError(
                    self.path,
                    found=f"{len(values)} values of {name!r} for {rows} images",
                    expected="one value per image",
                    remedy="check the annotations",
                )
            if name in ("pitch", "yaw") and not np.isfinite(values).all():
                raise DataError(
                    self.path,
                    found=f"{name} is not finite at row {int(np.flatnonzero(~np.isfinite(values))[0])} of the batch",
                    expected="radians",
                    remedy="correct the label or leave the image out",
                )
            check_radians(self.path, name, values)
            arrays.append(_column(values))
        table = pa.table(dict(zip(self._columns, arrays, strict=True)))
        if self._schema is None:
            self._schema = table.schema
        return table.cast(self._schema)

    def _name(self, stem: str, suffix: str) -> Path:
        return self.partial / f"{stem}-{len(self._shards):05d}.{suffix}"

    def _begin_shard(self) -> None:
        self._file = self._name("images", "npy").open("wb")
        _write_header(self._file, (0, *self.shape))
        if self._columns:
            self._table = pq.ParquetWriter(self._name("annotations", "parquet"), self._schema)
        self._rows = 0

    def _write_annotations(self, at_least: int) -> None:
        if self._table is not None and sum(len(t) for t in self._pending) >= max(at_least, 1):
            self._table.write_table(pa.concat_tables(self._pending).combine_chunks())
            self._pending = []

    def _end_shard(self) -> None:
        if self._file is None:
            return
        # numpy leaves room for 20 digits in the header, so the true count fits where the placeholder was.
        self._file.seek(0)
        _write_header(self._file, (self._rows, *self.shape))
        self._file.close()
        self._file = None
        shard: dict[str, object] = {"rows": self._rows}
        names = [self._name("images", "npy")]
        if self._table is not None:
            self._write_annotations(1)
            self._table.close()
            self._table = None
            names.append(self._name("annotations", "parquet"))
        for path in names:
            kind = path.name.split("-")[0]
            shard[kind] = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self._shards.append(shard)

    def _finish(self) -> None:
        self._end_shard()
        if not self._shards:
            raise DataError(
                self.path, found="no images", expected="at least one", remedy="check the source of the images"
            )
        (self.partial / PROVENANCE).write_text(json.dumps(self.provenance, indent=1) + "\n")
        manifest = {
            "format": FORMAT,
            "size": list(self.shape[1:]),
            "channels": self.shape[0],
            "columns": self._columns or [],
            "provenance_sha256": sha256(self.partial / PROVENANCE),
            "shards": self._shards,
        }
        (self.partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if self.path.exists():
            replaced = self.path.with_name(self.path.name + ".replaced")
            shutil.rmtree(replaced, ignore_errors=True)
            self.path.rename(replaced)
            self.partial.rename(self.path)
            shutil.rmtree(replaced)
        else:
            self.partial.rename(self.path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file is not None:
                self._file.close()
            if self._table is not None:
                self._table.close()
            shutil.rmtree(self.partial, ignore_errors=True)


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call, unused-ignore]


def _column(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    flat = values.reshape(len(values), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
