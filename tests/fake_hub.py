"""A model hub on loopback, small enough to read: enough routes for the real download code, and the ways it fails."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTED = "89abcdef0123456789abcdef0123456789abcdef"  # another one, of repositories named "org/name@converted"


class FakeHub(ThreadingHTTPServer):
    """Serves folders as repositories ("org/name@converted": another revision of one).

    `refusals` maps a repository to (HTTP status, error code of the hub).
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.refusals: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._reply()

    def do_GET(self) -> None:
        self._reply()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _reply(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, rest = "/".join(parts[:2]), parts[2:]
        if name in self.server.refusals:
            status, code = self.server.refusals[name]
            return self._send(status, b"{}", {"X-Error-Code": code})
        if name not in self.server.repositories:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        asked = rest[1] if rest[:1] in (["revision"], ["tree"], ["resolve"]) else "main"
        is_converted = asked in ("converted", CONVERTED) and f"{name}@converted" in self.server.repositories
        folder = self.server.repositories[f"{name}@converted" if is_converted else name]
        commit = CONVERTED if is_converted else COMMIT
        files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
        if not path.startswith("/api/") and rest[:1] == ["resolve"]:
            file = folder.joinpath(*rest[2:])
            if not file.is_file():
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            etag = hashlib.sha256(file.read_bytes()).hexdigest()
            return self._send(200, file.read_bytes(), {"ETag": f'"{etag}"', "X-Repo-Commit": commit})
        if rest[:1] == ["revision"] and not is_converted and asked not in ("main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if rest[:1] == ["tree"]:
            return self._json(
                [{"type": "file", "path": f, "size": (folder / f).stat().st_size, "oid": "0" * 40} for f in files]
            )
        return self._json({"id": name, "sha": commit, "siblings": [{"rfilename": f} for f in files]})

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextlib.contextmanager
def fake_hub(repositories: dict[str, Path]) -> Iterator[FakeHub]:
    """Run a hub with these repositories for the length of a `with` block."""
    server = FakeHub(repositories)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Point the hub library, which reads its environment at import, at another hub and an own cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # the session keeps the proxies it was made with
