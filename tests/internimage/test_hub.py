"""Downloads, against a hub of our own on this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from internimage import hub

NAME = "internimage_t_1k_224"
URL_PATH = "/OpenGVLab/internimage_t_1k_224/resolve/main/model.safetensors"
CONTENT = b"weights"


@pytest.fixture
def point_at(monkeypatch, tmp_path):
    """Function that moves the hub to a port of this machine; its cache is empty."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # No waiting in a test; what waits would ask again.
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits to ask again"))

    def move(port: int) -> None:
        endpoint = f"http://127.0.0.1:{port}"
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return move


@pytest.fixture
def serve(point_at):
    """Function that starts a hub which answers with a status and further headers."""
    servers = []

    def start(status: int, headers: dict[str, str]) -> list[str]:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):  # noqa: N802  (the name that http.server calls)
                asked.append(f"{self.command} {self.path}")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(CONTENT)))
                self.end_headers()

            def do_GET(self):  # noqa: N802
                self.do_HEAD()
                self.wfile.write(CONTENT)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        point_at(server.server_address[1])
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_file_is_downloaded_once(serve):
    asked = serve(200, {"ETag": '"abc"', "X-Repo-Commit": "0" * 40})
    path = hub.download(NAME)
    assert path.read_bytes() == CONTENT
    assert asked.count(f"GET {URL_PATH}") == 1
    assert hub.download(NAME) == path
    assert asked.count(f"GET {URL_PATH}") == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "", PermissionError),
        (401, "RepoNotFound", PermissionError),
        (403, "", PermissionError),
        (403, "GatedRepo", PermissionError),
        (404, "RepoNotFound", PermissionError),
        (404, "EntryNotFound", ValueError),
    ],
)
def test_a_hub_that_refuses_is_not_a_missing_network(status, code, kind, serve):
    asked = serve(status, {"X-Error-Code": code} if code else {})
    with pytest.raises(kind, match=r"download: expected") as caught:
        hub.download(NAME)
    assert len(asked) == 1
    assert "network" not in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind is PermissionError:
        assert URL_PATH in str(caught.value)
        assert str(status) in str(caught.value)


def test_without_a_network_it_gives_up_at_once(point_at):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # never listens
        point_at(closed.getsockname()[1])
        with pytest.raises(ConnectionError, match="by hand: fetch http") as caught:
            hub.download(NAME)
    assert URL_PATH in str(caught.value)
    assert "--checkpoint PATH" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_cache_needs_no_network(serve, point_at):
    serve(200, {"ETag": '"abc"', "X-Repo-Commit": "0" * 40})
    path = hub.download(NAME)
    point_at(9)
    assert hub.download(NAME) == path


def test_the_logs_of_other_packages_stay_as_they_are(serve):
    loggers = [
        logging.getLogger(name) for name in ("huggingface_hub", "huggingface_hub.utils._http")
    ]
    before = [logger.level for logger in loggers]
    serve(404, {"X-Error-Code": "EntryNotFound"})
    with pytest.raises(ValueError, match="try source='pth'"):
        hub.download(NAME)
    assert [logger.level for logger in loggers] == before


@pytest.mark.parametrize(
    ("name", "source", "path"),
    [
        (NAME, None, URL_PATH),
        (NAME, "safetensors", URL_PATH),
        (NAME, "pth", f"/OpenGVLab/InternImage/resolve/main/{NAME}.pth"),
        (
            "internimage_h_22ktoinat18_384",
            None,
            "/OpenGVLab/InternImage/resolve/main/internimage_h_22ktoinat18_384.pth",
        ),
    ],
)
def test_downloads_ask_for_the_released_file(name, source, path, serve):
    asked = serve(200, {"ETag": '"abc"', "X-Repo-Commit": "0" * 40})
    assert hub.download(name, source=source).name == path.rpartition("/")[2]
    assert f"GET {path}" in asked


def test_a_release_without_repository_comes_as_pth_alone():
    with pytest.raises(ValueError, match="expected source = 'pth'"):
        hub.download("internimage_h_22ktoinat18_384", source="safetensors")


def test_downloading_an_unknown_name_is_a_value_error():
    with pytest.raises(ValueError, match="download: expected a known model name"):
        hub.download("internimage_q")


def test_a_busy_hub_is_asked_again_and_then_named(serve, monkeypatch):
    asked = serve(503, {})
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(ConnectionError, match="503.*; by hand: fetch http"):
        hub.download(NAME)
    assert len(asked) > 2
    assert waits
