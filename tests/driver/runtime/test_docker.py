"""Errors of Docker that need no engine; what needs one is in tests/docker."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from docker.errors import DockerException

from rml_search.errors import RuntimeUnavailableError
from rml_search.runtime import docker
from rml_search.runtime.base import EngineRun

RUN = EngineRun(Path("trials/0000/config.json"))


def test_no_engine_is_one_line_that_says_what_to_do(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(RuntimeUnavailableError, match=r"no Docker engine answers .*--runtime local") as caught:
        docker.DockerRuntime(workspace, "x", gpu=False).prepare(print)
    assert "\n" not in str(caught.value)


def test_no_permission_names_the_group(workspace, monkeypatch):
    # Raised as the SDK raises it: root, as whom tests often run, is never refused.
    def refuse():
        raise DockerException(
            "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))"
        )

    monkeypatch.setattr(docker, "from_env", refuse)
    with pytest.raises(RuntimeUnavailableError, match="add yourself to the group docker"):
        docker.DockerRuntime(workspace, "x", gpu=False).prepare(print)


@pytest.mark.parametrize(("cores", "threads"), [(3, "3"), (16, None)])
def test_a_container_takes_no_more_cores_than_this_process_has(workspace, monkeypatch, cores, threads):
    monkeypatch.setattr(docker, "num_cpus", lambda: cores)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    runtime = docker.DockerRuntime(workspace, "x", gpu=False)
    assert runtime.settings(RUN)["environment"].get("OMP_NUM_THREADS") == threads
    assert runtime.settings(replace(RUN, num_threads=2))["environment"]["OMP_NUM_THREADS"] == "2"


@pytest.fixture
def engine(monkeypatch):
    """Makes an HTTP server answer in a Docker engine's place: ``{(method, end of the path): [(status, body), ...]}``.

    The last answer of a list is given again and again.
    """
    servers = []

    def start(answers):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = self.path.partition("?")[0]
                key = next(key for key in answers if key[0] == self.command and path.endswith(key[1]))
                status, body = answers[key].pop(0) if len(answers[key]) > 1 else answers[key][0]
                text = body if isinstance(body, str) else json.dumps(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if path.endswith("/images/create"):
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for chunk in [*text.splitlines(keepends=True), ""]:
                        self.wfile.write(f"{len(chunk):x}\r\n{chunk}\r\n".encode())
                    return
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - names that http.server looks for

            def log_message(self, *_):
                pass

        answers |= {
            ("GET", "/version"): [(200, {"Version": "28.0", "ApiVersion": "1.48"})],
            ("GET", "/_ping"): [(200, "OK")],
        }
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def event(status, layer):
    return json.dumps({"status": status, "id": layer}) + "\r\n"


PULL = (
    event("Pulling from a/b", "1")
    + event("Already exists", "base")
    + event("Pulling fs layer", "x")
    + event("Pulling fs layer", "y")
    + event("Downloading", "y")
    + event("Pull complete", "y")
    + event("Pull complete", "y")
    + event("Pull complete", "x")
    + json.dumps({"status": "Status: Downloaded newer image for a/b:1"})
)


def test_a_pull_tells_how_far_it_is(workspace, engine):
    image = "/images/a/b:1/json"
    engine(
        {("GET", image): [(404, {"message": "No such image"}), (200, {})], ("POST", "/images/create"): [(200, PULL)]}
    )
    told = []
    docker.DockerRuntime(workspace, "a/b:1", gpu=False).prepare(told.append)
    assert told == ["Pulling a/b:1 ...", "  1 of 1 layers", "  2 of 3 layers", "  3 of 3 layers"]


def test_an_image_that_is_here_is_not_pulled(workspace, engine):
    engine({("GET", "/images/a/b:1/json"): [(200, {})]})
    told = []
    docker.DockerRuntime(workspace, "a/b:1", gpu=False).prepare(told.append)
    assert told == []


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"message": "manifest for a/b:1 not found"}),
        (200, event("Pulling fs layer", "x") + json.dumps({"error": "manifest for a/b:1 not found"})),
    ],
)
def test_a_pull_that_fails_is_one_line(workspace, engine, answer):
    image = "/images/a/b:1/json"
    engine({("GET", image): [(404, {"message": "No such image"})], ("POST", "/images/create"): [answer]})
    message = r"^the image a/b:1 is neither here nor to be pulled \(manifest for a/b:1 not found\): build ours"
    with pytest.raises(RuntimeUnavailableError, match=message):
        docker.DockerRuntime(workspace, "a/b:1", gpu=False).prepare(lambda line: None)


@pytest.mark.parametrize(
    ("num_procs", "message"),
    [(1, "has no command rmldnn: it is no image"), (2, "has no command mpirun, which --num-procs above 1 needs")],
)
def test_the_program_that_is_missing_is_named(workspace, engine, num_procs, message):
    engine(
        {
            ("POST", "/containers/create"): [(201, {"Id": "c"})],
            ("POST", "/containers/c/start"): [(204, "")],
            ("POST", "/containers/c/wait"): [(200, {"StatusCode": 127})],
            ("GET", "/containers/c/json"): [(200, {"Id": "c", "State": {}})],
            ("DELETE", "/containers/c"): [(204, "")],
        }
    )
    runtime = docker.DockerRuntime(workspace, "a/b:1", gpu=False)
    run = EngineRun(RUN.config, num_procs=num_procs)
    with pytest.raises(RuntimeUnavailableError, match=message), runtime.start(run) as container:
        container.wait()
