"""What a scale needs from outside comes whole, checked, and no byte twice; from a real server in a thread."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from strangers import CALLED, take_over

from selftrans.commands import main

CONTENT = bytes(range(256)) * 4096 * 4  # 4 MiB
CONFIG = b'{"latent_channels": 4}'


class Server(ThreadingHTTPServer):
    """Files by path, with ranges; it may hang up early, wait, or have another file by now."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/inception.pth": CONTENT, "/vae.safetensors": CONTENT[:1000], "/config.json": CONFIG}
        self.hang_up_after: int | None = None
        self.wait_after: int | None = None
        self.meanwhile = lambda: None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path, Range

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, asked = self.server.files.get(self.path), self.headers.get("Range")
        self.server.meanwhile()
        self.server.asked.append((self.path, asked))
        if content is None:
            self.send_error(404)
            return
        version = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        begin = 0
        if asked and self.server.ranges and self.headers.get("If-Range", version) == version:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", version)
        self.end_headers()
        end = len(content) if self.server.hang_up_after is None else begin + self.server.hang_up_after
        for start in range(begin, end, 65536):
            self.wfile.write(content[start : min(start + 65536, end)])
            if self.server.wait_after is not None and start - begin >= self.server.wait_after:
                self.wfile.flush()
                time.sleep(30)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def wanted(configuration, server, tmp_path, monkeypatch):
    """A scale with a published extractor and VAE, and where they are to be had."""
    monkeypatch.chdir(tmp_path)
    family = configuration.family
    family["extractor"] = {"published": "inception", "weights": "external/inception.pth"}
    family["tokenizer"] = {"published": "sd-vae-ft-mse", "weights": "external/vae"}
    publication = {"what": "a network", "home": "https://example.org/home", "licence": "MIT"}
    inception = {"name": "inception.pth", "address": server.address("inception.pth"), "bytes": len(CONTENT)}
    vae = [{"name": name, "address": server.address(name)} for name in ("vae.safetensors", "config.json")]
    configuration.publications = {
        "inception": publication | {"files": [inception | {"sha256": sha256(CONTENT)}]},
        "sd-vae-ft-mse": publication | {"folder": True, "files": vae},
    }
    return configuration


def write(configuration) -> list[str]:
    (configuration.write() / "publications.yaml").write_text(yaml.safe_dump(configuration.publications))
    return ["fetch", "--config", str(configuration.folder)]


def fetch(configuration, *options: str) -> int:
    return main([*write(configuration), *options])


def test_files_come_to_where_the_scale_wants_them(wanted, server, capsys):
    assert fetch(wanted) == 0
    assert Path("external/inception.pth").read_bytes() == CONTENT
    assert Path("external/vae/vae.safetensors").read_bytes() == CONTENT[:1000]
    assert Path("external/vae/config.json").read_bytes() == CONFIG
    assert "0 files were there, 3 came" in capsys.readouterr().out
    assert not list(Path("external").rglob("*.part*"))
    checked = subprocess.run(["sha256sum", "-c", "inception.pth.sha256"], cwd="external", check=False)
    assert checked.returncode == 0


def test_what_is_there_and_right_stays_without_a_network(wanted, server, capsys):
    assert fetch(wanted) == 0
    dates = {path: path.stat().st_mtime_ns for path in Path("external").rglob("*")}
    server.shutdown()
    server.server_close()
    assert fetch(wanted) == 0
    assert "3 files were there, 0 came" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in Path("external").rglob("*")} == dates


def test_another_file_in_the_place_is_never_overwritten(wanted, server, capsys):
    Path("external").mkdir()
    Path("external/inception.pth").write_bytes(b"something of my own")
    assert fetch(wanted) == 2
    error = capsys.readouterr().err
    assert "external/inception.pth: SHA-256 " in error
    assert "move the file away" in error
    assert Path("external/inception.pth").read_bytes() == b"something of my own"
    assert server.asked == []  # nothing was downloaded before all was looked at


def test_a_link_in_the_place_is_refused(wanted, tmp_path, capsys):
    Path("external").mkdir()
    Path("external/inception.pth").symlink_to(tmp_path / "nowhere")
    assert fetch(wanted) == 2
    assert "external/inception.pth: a link" in capsys.readouterr().err


def test_a_connection_that_ends_early_goes_on(wanted, server, capsys):
    server.hang_up_after = 1_000_000
    assert fetch(wanted, "tiny", "inception") == 2
    assert f"ended after 1000000 of {len(CONTENT)} bytes; the same command goes on" in capsys.readouterr().err
    assert not Path("external/inception.pth").exists()
    server.hang_up_after = None
    assert fetch(wanted, "tiny", "inception") == 0
    assert Path("external/inception.pth").read_bytes() == CONTENT
    assert server.asked == [("/inception.pth", None), ("/inception.pth", "bytes=1000000-")]


def test_a_fetch_that_was_killed_goes_on(wanted, server):
    server.wait_after = 2_000_000
    command = [sys.executable, "-m", "selftrans", *write(wanted), "tiny", "inception"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        part = Path("external/inception.pth.part")
        deadline = time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 2**20:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    begun = part.stat().st_size
    assert 0 < begun < len(CONTENT)
    server.wait_after = None
    assert fetch(wanted, "tiny", "inception") == 0
    assert Path("external/inception.pth").read_bytes() == CONTENT
    assert server.asked[-1] == ("/inception.pth", f"bytes={begun}-")


def test_a_fetch_that_another_has_taken_over_writes_nothing(wanted, server, capsys):
    server.meanwhile = lambda: take_over(Path("external"))
    assert fetch(wanted, "tiny", "inception") != 0
    assert f"external: was taken over by {CALLED} while this one stood still" in capsys.readouterr().err
    assert not Path("external/inception.pth").exists()
    assert Path("external/inception.pth.part").stat().st_size == 0


def test_a_part_that_is_whole_is_only_checked(wanted, server):
    Path("external/vae").mkdir(parents=True)
    Path("external/inception.pth.part").write_bytes(CONTENT)  # killed before it got its name
    Path("external/vae/config.json.part").write_bytes(CONFIG)
    Path("external/vae/config.json.part.etag").write_text(f'"{sha256(CONFIG)[:8]}"')
    assert fetch(wanted) == 0
    assert "/inception.pth" not in dict(server.asked)
    assert Path("external/vae/config.json").read_bytes() == CONFIG


def test_a_server_without_ranges_sends_all_again(wanted, server):
    server.hang_up_after = 1_000_000
    assert fetch(wanted, "tiny", "inception") == 2
    server.hang_up_after, server.ranges = None, False
    assert fetch(wanted, "tiny", "inception") == 0
    assert Path("external/inception.pth").read_bytes() == CONTENT


def test_bytes_of_two_files_are_never_mixed(wanted, server):
    """Where no hash is known, a file that changed meanwhile is begun again."""
    server.hang_up_after = 500
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 2
    assert Path("external/vae/vae.safetensors.part").stat().st_size == 500
    server.hang_up_after, server.files["/vae.safetensors"] = None, b"x" * 900
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 0
    assert Path("external/vae/vae.safetensors").read_bytes() == b"x" * 900


def test_what_is_not_the_published_file_is_deleted(wanted, server, capsys):
    server.files["/inception.pth"] = CONTENT[::-1]
    assert fetch(wanted, "tiny", "inception") == 2
    assert "not the file that was published; it is deleted" in capsys.readouterr().err
    assert not list(Path("external").glob("inception*"))


def test_more_than_the_published_file_is_deleted(wanted, server, capsys):
    server.files["/inception.pth"] = CONTENT + b"more"
    assert fetch(wanted, "tiny", "inception") == 2
    assert f"more than the {len(CONTENT)} bytes" in capsys.readouterr().err
    assert not list(Path("external").glob("inception*"))


def test_where_no_hash_is_known_the_first_file_is_remembered(wanted, server, capsys):
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 0
    Path("external/vae/config.json").write_bytes(b"{}")
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 2
    assert f"external/vae/config.json: SHA-256 {sha256(b'{}')}" in capsys.readouterr().err
    Path("external/vae/config.json").unlink()
    server.files["/config.json"] = b"[]"
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 2
    assert not Path("external/vae/config.json").exists()


def test_a_file_that_was_copied_by_hand_is_taken(wanted, server):
    Path("external/vae").mkdir(parents=True)
    Path("external/vae/vae.safetensors").write_bytes(b"mine")
    Path("external/vae/config.json").write_bytes(CONFIG)
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 0
    assert server.asked == []
    assert Path("external/vae/vae.safetensors.sha256").read_text().startswith(sha256(b"mine"))


@pytest.mark.parametrize("change", ["gone", "nobody"])
def test_a_server_that_has_it_not_is_a_sentence(wanted, server, capsys, change):
    if change == "gone":
        del server.files["/inception.pth"]
    else:
        server.shutdown()
        server.server_close()
    assert fetch(wanted, "tiny", "inception") == 2
    error = capsys.readouterr().err
    assert ("the server says 404" if change == "gone" else "Connection refused; the same command goes on") in error
    assert error.count("\n") == 1


def test_print_says_what_to_copy_where(wanted, server, tmp_path, capsys):
    assert fetch(wanted, "--print") == 0
    out = capsys.readouterr().out
    assert f"{server.address('inception.pth')}\n  to {tmp_path}/external/inception.pth (4.2 MB, SHA-256 " in out
    assert f"to {tmp_path}/external/vae/config.json (size not known to us)" in out
    assert server.asked == []
    assert not Path("external").exists()


def test_list_says_what_it_is_and_whether_it_is_there(wanted, capsys):
    assert fetch(wanted, "tiny", "sd-vae-ft-mse") == 0
    capsys.readouterr()
    assert fetch(wanted, "--list") == 0
    out = capsys.readouterr().out
    assert "inception: external/inception.pth (not there)\n  a network\n  from https://example.org/home" in out
    assert "sd-vae-ft-mse: external/vae (there)" in out
    assert "licence: MIT" in out


def test_what_needs_an_agreement_is_said_with_its_address(wanted, capsys):
    wanted.family["data"] = {
        "source": "images",
        "name": "imagenet",
        "path": "external/train",
        "classes": 10,
        "size": 16,
    }
    agreed = {"what": "the images", "home": "https://example.org/agree", "licence": "terms to agree to"}
    wanted.publications = {"imagenet": agreed}
    assert fetch(wanted) == 0
    out = capsys.readouterr().out
    assert "families.small.data.path: external/train is not there: the images\n  from https://example.org/agree" in out
    assert "external/inception.pth is not there: put inception there yourself" in out


def test_only_what_rows_need_is_fetched(wanted, capsys):
    """No row aligns with the encoder."""
    wanted.family["encoder"] = {"published": "dinov2-b", "weights": "external/dinov2.pth"}
    assert fetch(wanted, "--list") == 0
    assert "dinov2" not in capsys.readouterr().out
    assert fetch(wanted, "tiny", "dinov2-b") == 2
    assert "found 'dinov2-b'; allowed: inception, sd-vae-ft-mse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("field", "value"), [("address", "file:///etc/passwd"), ("name", "../up"), ("sha256", "beef"), ("bytes", 0)]
)
def test_a_wrong_publication_is_refused(wanted, capsys, field, value):
    wanted.publications["inception"]["files"][0][field] = value
    assert fetch(wanted) == 2
    assert f"publications.yaml: inception.files.1.{field}: found " in capsys.readouterr().err
