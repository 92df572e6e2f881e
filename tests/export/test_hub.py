"""hf:REPO[/FILE] against a hub on this machine that speaks the few requests that are needed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "a" * 40


@pytest.fixture
def hub(committed_goldens) -> Iterator[str]:
    """A hub with owner/one (one checkpoint) and owner/two (two)."""
    path = committed_goldens.checkpoint(committed_goldens.entries[0])
    content = path.read_bytes()
    repositories = {"owner/one": ["README.md", "model.pth"], "owner/two": ["a.pth", "b.pth"]}

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repo = "/".join(self.path.removeprefix("/api/models").split("?")[0].strip("/").split("/")[:2])
            if repo not in repositories:
                return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            files = repositories[repo]
            if "/resolve/" in self.path:
                if self.path.split("?")[0].rsplit("/", 1)[1] not in files:
                    return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return self.reply(
                    200, content, {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
                )
            if "/tree/" in self.path:
                return self.reply(
                    200, json.dumps([{"type": "file", "path": f, "size": 1, "oid": "0"} for f in files])
                )
            info = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
            return self.reply(200, json.dumps(info))

        do_HEAD = do_GET  # noqa: N815

        def reply(self, code: int, body: bytes | str, headers: dict[str, str] | None = None) -> None:
            body = body.encode() if isinstance(body, str) else body
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def read(source: str, hub: str, cache: Path, **environment: str) -> str:
    """What `read_checkpoint` makes of a source, in its own process: the hub's address is read at import."""
    code = (
        "import sys\n"
        "from nes2net_export.checkpoints import read_checkpoint\n"
        "from nes2net_runtime.errors import CheckpointError\n"
        "try:\n    print(len(read_checkpoint(sys.argv[1]).state), 'keys')\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    variables = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        **environment,
    }
    done = subprocess.run([sys.executable, "-c", code, source], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_named_only_and_cached_files(hub: str, committed_goldens, tmp_path: Path) -> None:
    keys = f"{committed_goldens.entries[0]['n_keys']} keys"
    assert read("hf:owner/one/model.pth", hub, tmp_path) == keys
    assert read("hf:owner/one", hub, tmp_path) == keys
    assert read("hf:owner/one/model.pth", hub, tmp_path, HF_HUB_OFFLINE="1") == keys


@pytest.mark.slow
def test_what_is_not_there(hub: str, tmp_path: Path) -> None:
    assert "there are: a.pth, b.pth" in read("hf:owner/two", hub, tmp_path)
    assert "has no file c.pth" in read("hf:owner/two/c.pth", hub, tmp_path)
    assert "no such repository, or it is private" in read("hf:owner/none/a.pth", hub, tmp_path)
    assert "HF_HUB_OFFLINE is set" in read("hf:owner/one/model.pth", hub, tmp_path, HF_HUB_OFFLINE="1")
