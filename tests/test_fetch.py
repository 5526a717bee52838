"""Fetching against a local file server: checksums, resuming, damage, no network."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from simgan_core.datasets import fetch as module
from simgan_core.datasets.errors import DataError
from simgan_core.datasets.fetch import fetch
from simgan_core.datasets.unityeyes2_files import COMMIT, SHA256, SKINS

DATA_ROOT = Path(os.environ.get("SIMGAN_DATA_ROOT", Path(__file__).parents[2] / "shared" / "data"))
MESH, SPACE = "Assets/a.3ds", "Assets/Wetness/b 1.3ds"
SKIN = "Assets/Resources/SkinTextures/f01_color.png"


class Server:
    """A file server that remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small UnityEyes2 and the checksums of its files."""
    folder = tmp_path / "site"
    for name in (MESH, SPACE, SKIN):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / MESH).write_bytes(b"mesh" * 100)
    (folder / SPACE).write_bytes(b"wet" * 100)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / SKIN), noise)
    known = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (MESH, SPACE)}
    monkeypatch.setattr(module, "SHA256", known)
    monkeypatch.setattr(module, "SKINS", (SKIN,))
    monkeypatch.setattr("time.sleep", lambda _: None)  # pooch waits between attempts
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[Server]:
    running = Server(site)
    yield running
    running.stop()


def test_everything_arrives_once(site: Path, server: Server, tmp_path: Path) -> None:
    folder = fetch("unityeyes2", tmp_path / "data", url=server.url, progress=False)
    assert folder == tmp_path / "data" / "unityeyes2"
    for name in (MESH, SPACE, SKIN):
        assert (folder / name).read_bytes() == (site / name).read_bytes()
    assert len(server.asked) == 3 and "/Assets/Wetness/b%201.3ds" in server.asked
    fetch("unityeyes2", tmp_path / "data", url=server.url, progress=False)
    assert len(server.asked) == 3, "nothing is asked for again"


def test_goes_on_where_it_stopped_and_replaces_damaged_files(site: Path, server: Server, tmp_path: Path) -> None:
    whole = (site / SKIN).read_bytes()
    (site / SKIN).unlink()
    with pytest.raises(DataError, match=r"HTTPError for .*f01_color.png.*goes on where it stopped"):
        fetch("unityeyes2", tmp_path, url=server.url, progress=False)
    folder = tmp_path / "unityeyes2"
    assert (folder / MESH).is_file() and not (folder / SKIN).exists()
    (site / SKIN).write_bytes(whole)
    (folder / MESH).write_bytes(b"damaged")
    before = len(server.asked)
    fetch("unityeyes2", tmp_path, url=server.url, progress=False)
    assert sorted(server.asked[before:]) == sorted([f"/{MESH}", f"/{SKIN}"])
    assert (folder / MESH).read_bytes() == (site / MESH).read_bytes()


@pytest.mark.parametrize("name", [MESH, SKIN])
@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b""])
def test_other_content_is_refused_and_not_kept(
    site: Path, server: Server, tmp_path: Path, name: str, content: bytes
) -> None:
    (site / name).write_bytes(content)
    with pytest.raises(DataError, match=Path(name).name):
        fetch("unityeyes2", tmp_path, url=server.url, progress=False)
    assert not (tmp_path / "unityeyes2" / name).exists()
    assert not [path for path in (tmp_path / "unityeyes2").rglob("tmp*") if path.is_file()]


def test_truncated_skin_is_refused(site: Path, server: Server, tmp_path: Path) -> None:
    (site / SKIN).write_bytes((site / SKIN).read_bytes()[:-100])
    with pytest.raises(DataError, match="a whole PNG"):
        fetch("unityeyes2", tmp_path, url=server.url, progress=False)


def test_offline_says_what_to_do(site: Path, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ConnectionError for .*one of 3 files to fetch.* from another machine"):
        fetch("unityeyes2", tmp_path, url="http://127.0.0.1:9/", progress=False)


def test_other_data_sets_are_fetched_by_their_users(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'mpiigaze' found.*data/README.md"):
        fetch("mpiigaze", tmp_path)


def test_registry() -> None:
    assert len(COMMIT) == 40 and COMMIT in module.URL
    assert len(SKINS) == 60 and len(SHA256) == 38 and all(len(digest) == 64 for digest in SHA256.values())


@pytest.mark.skipif(not (DATA_ROOT / "unityeyes2").is_dir(), reason=f"no {DATA_ROOT}/unityeyes2")
def test_registry_agrees_with_the_real_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("unityeyes2", DATA_ROOT, url="http://127.0.0.1:9/", progress=False)
    assert {p.relative_to(folder).as_posix() for p in (folder / "Assets").rglob("*.png") if "Skin" in str(p)} >= {
        *SKINS
    }
