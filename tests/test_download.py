"""Downloads from a server on this machine that answers well, wrongly, slowly, or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyfacelat import weights, zoo
from pyfacelat.cli import main
from pyfacelat.download import digest_of, download
from pyfacelat.errors import DownloadError, MissingWeightsError

BODY = os.urandom(200_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


class Answers(http.server.BaseHTTPRequestHandler):
    """The path says how it answers."""

    def do_GET(self) -> None:
        kind = self.path.rsplit("/", 1)[1]
        if kind == "absent":
            self.send_error(404)
        elif kind == "silent":
            time.sleep(3)
        elif kind.startswith("to-"):
            target = {
                "to-good": "good",
                "to-itself": "to-itself",
                "to-file": "file:///etc/hostname",
                "to-ftp": "ftp://127.0.0.1/good",
            }[kind]
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
        else:
            self.send_response(200)
            if kind != "endless":
                self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            try:
                self.body(kind)
            except (BrokenPipeError, ConnectionResetError):
                pass

    def body(self, kind: str) -> None:
        if kind == "truncated":
            self.wfile.write(BODY[:70_000])
        elif kind == "trickle":
            for byte in BODY[:100]:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        elif kind == "endless":
            for _ in range(50):
                self.wfile.write(BODY)
        else:
            self.wfile.write(BODY)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()
        thread.join()


def get(url: str, path: Path, **changes: object) -> None:
    settings = {"sha256": DIGEST, "max_bytes": 250_000, "timeout": 1.0, "schemes": ("http",)}
    download(url, path, **{**settings, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["good", "to-good"])
def test_a_good_answer(server: str, tmp_path: Path, kind: str) -> None:
    seen: list[tuple[int, int]] = []
    path = tmp_path / "deep" / "weights.pth"
    get(server + kind, path, progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY and digest_of(path) == DIGEST
    assert seen[-1] == (len(BODY), len(BODY))
    assert os.listdir(path.parent) == ["weights.pth"]


@pytest.mark.parametrize(
    "kind, changes, words",
    [
        ("good", {"sha256": "0123456789"}, "begins with .*, expected 0123456789"),
        ("good", {"max_bytes": 199_999}, "200000 bytes, expected at most 199999"),
        ("endless", {}, "goes on past 250000 bytes"),
        ("truncated", {}, "ends after 70000 of 200000 bytes"),
        ("trickle", {"timeout": 0.5}, "too slow"),
        ("silent", {"timeout": 0.3}, r"no answer for 0\.3 s"),
        ("absent", {}, "the server answers 404"),
        ("to-itself", {}, "answers 302"),
        ("to-file", {}, "answers 302.*not allowed"),
        ("to-ftp", {}, "leads to ftp:.*expected an address that begins with http"),
        ("good", {"schemes": ("https",)}, "begins with https"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["fresh", "replacing"])
def test_a_bad_answer_leaves_what_was_there(
    server: str, tmp_path: Path, kind: str, changes: dict[str, object], words: str, there: bool
) -> None:
    path = tmp_path / "weights.pth"
    if there:
        path.write_bytes(b"before")
    with pytest.raises(DownloadError, match=words):
        get(server + kind, path, **changes)
    assert os.listdir(tmp_path) == (["weights.pth"] if there else [])
    assert not there or path.read_bytes() == b"before"


def test_nobody_answers(tmp_path: Path, server: str) -> None:
    with pytest.raises(DownloadError, match="refused"):
        get("http://127.0.0.1:1/good", tmp_path / "x")
    assert not os.listdir(tmp_path)


class TestCommand:
    @pytest.fixture
    def home(self, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """One weight file, "net", on the server; it goes to the folder given back."""
        real = zoo.known_weights

        def known() -> list[zoo.WeightFile]:
            row = next(row for row in real() if row.name == "2dfan4")
            path = tmp_path / "weights" / "net.pth"
            return [
                dataclasses.replace(
                    row, name="net", file="net.pth", sha256=DIGEST[:10], url=server + "good",
                    max_bytes=250_000, searched=(path,), found=path if path.exists() else None,
                )
            ]  # fmt: skip

        monkeypatch.setattr(zoo, "known_weights", known)
        monkeypatch.setattr(zoo, "weights_dirs", lambda: [tmp_path / "weights"])
        monkeypatch.setattr(sys.modules["pyfacelat.cli.fetch"], "SCHEMES", ("http",))
        return tmp_path / "weights"

    def test_fetch_and_find_it_there(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["fetch"]) == 0
        assert "absent" in capsys.readouterr().out
        assert main(["fetch", "net"]) == 0
        path = home / "net.pth"
        assert path.read_bytes() == BODY and capsys.readouterr().out.strip() == str(path)
        before = path.stat().st_mtime_ns
        assert main(["fetch", "net"]) == 0 and path.stat().st_mtime_ns == before
        capsys.readouterr()
        assert main(["fetch"]) == 0 and "there" in capsys.readouterr().out

    def test_damaged_file(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        home.mkdir()
        path = home / "net.pth"
        path.write_bytes(b"damaged")
        assert main(["fetch", "net"]) == 4
        assert "--force replaces it" in capsys.readouterr().err
        assert path.read_bytes() == b"damaged"
        assert main(["fetch", "net", "--force"]) == 0 and path.read_bytes() == BODY

    def test_another_folder_and_unknown_names(
        self, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["fetch", "net", "--to", str(tmp_path / "else")]) == 0
        assert (tmp_path / "else" / "net.pth").exists() and not home.exists()
        assert main(["fetch", "nett"]) == 2
        assert "there are: net" in capsys.readouterr().err


def test_every_known_address_is_https_and_ends_in_the_file() -> None:
    rows = [row for row in zoo.known_weights() if row.url]
    assert {"2dfan4", "s3fd", "vgg16"} <= {row.name for row in rows}
    for row in rows:
        assert row.url.startswith("https://") and row.url.endswith(row.file)
        assert len(row.sha256) >= 8 and row.sha256 in row.file and row.max_bytes > 1e6


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "weights_dirs", lambda: [tmp_path])
    with pytest.raises(MissingWeightsError, match="pyfacelat fetch s3fd"):
        zoo.load_detector()
