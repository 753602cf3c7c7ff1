"""The search and the tutorial's inference command in our image, on a real Docker engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import docker
import h5py
import numpy as np
import pytest

from rml_search.paths import Workspace
from rml_search.runtime.docker import LABEL
from rml_search.synthetic import write_synthetic_data

from ..faults import NUM_KILLS, FaultySearch

pytestmark = pytest.mark.docker

CHECKOUT = Path(__file__).resolve().parents[2]
SEARCH = ["-nt", "2", "-ne", "2", "-o", "adam,sgd", "-l", "dice,bce", "--layers", "layers.json"]
SEARCH += ["--image-size", "32", "32", "--batch-size", "4", "--seed", "3", "--no-gpu"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A small data set and a small network."""
    folder = tmp_path_factory.mktemp("files")
    write_synthetic_data(folder / "data", num_train=12, num_test=4, size=32, seed=1)
    builder = [sys.executable, "-m", "rmldnn_torch.architectures", "small_unet", str(folder / "layers.json")]
    subprocess.run([*builder, "--size", "32", "32"], check=True, cwd=CHECKOUT)
    return folder


@pytest.fixture
def person() -> tuple[int, int]:
    """User and group of the person who searches: root's tests play somebody else."""
    return (12345, 23456) if os.getuid() == 0 else (os.getuid(), os.getgid())


@pytest.fixture
def folder(files: Path, person: tuple[int, int]) -> Iterator[Path]:
    """A working directory of the person's, where nobody else's permissions help."""
    parent = Path(tempfile.mkdtemp(prefix="rml-docker-"))
    parent.chmod(0o755)
    root = parent / "a 'search' in Zürich"
    shutil.copytree(files, root)
    for path in [root, *root.rglob("*")]:
        os.chown(path, *person)
    yield root
    shutil.rmtree(parent)


@pytest.fixture
def type_in(folder: Path, person: tuple[int, int], docker_image: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command of ours as the person, who may use the Docker engine; a test that fails leaves none behind."""
    socket_group = Path("/var/run/docker.sock").stat().st_gid
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, image: str = docker_image) -> subprocess.Popen[str]:
        # Root's Python may lie where nobody else may look: the person may read all, and write only what is theirs.
        become = ["setpriv", f"--reuid={person[0]}", f"--regid={person[1]}", f"--groups={socket_group}"]
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        program = [sys.executable, str(CHECKOUT / "rml_optimization.py")]
        process = subprocess.Popen(
            [*(become if os.getuid() == 0 else []), *program, *arguments, "--docker-image", image],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.stdout is not None and not process.stdout.closed:  # nobody has waited for its end
            process.kill()
            process.communicate()


@pytest.fixture
def containers(docker_client, folder: Path) -> Callable[[], list]:
    """Lists the containers of this search, those that have ended included."""
    labels = {"label": f"{LABEL}={folder}"}
    # The SDK asks after each container once more, and one may go in between.
    return lambda: docker_client.containers.list(all=True, filters=labels, ignore_removed=True)


def wait_for(condition: Callable[[], object], seconds: float = 240) -> object:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return answer


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def test_search_then_both_ways_of_inference(type_in, folder, person, containers, docker_image):
    output = finish(type_in(*SEARCH))
    assert "Number of finished trials: 2" in output
    assert f"docker (image {docker_image}), because" in output
    entries = json.loads((folder / "list_acc.json").read_text())
    assert [entry["state"] for entry in entries] == ["complete", "complete"]
    assert containers() == []
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")}
    assert owners == {person}

    # The tutorial's second command, as it is printed there.
    shutil.copy(folder / "best_model" / "config_test.json", folder / "config_test.json")
    as_person = ["-u", f"{person[0]}:{person[1]}", "-v", f"{folder}:/home/ubuntu", "-w", "/home/ubuntu", "--rm"]
    answer = subprocess.run(
        ["docker", "run", *as_person, docker_image, "rmldnn", "--config=config_test.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    best = max(entry["max_acc"] for entry in entries)
    assert f"Accuracy: {best:.3f}" in answer.stdout
    assert "All done (return value = 0)." in answer.stdout
    by_tutorial = read(folder / "predictions" / "output_1.h5")
    assert len(by_tutorial) == 4
    assert (folder / "predictions" / "output_1.h5").stat().st_uid == person[0]

    output = finish(type_in("infer", "--no-gpu"))
    assert f"{best:.3f}" in output
    assert "Earlier predictions were moved to" in output
    ours = read(folder / "predictions" / "output_1.h5")
    for name, prediction in by_tutorial.items():
        np.testing.assert_array_equal(ours[name], prediction)


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def test_two_processes(type_in, folder):
    output = finish(type_in(*SEARCH[:1], "1", *SEARCH[2:], "--num_procs", "2"))
    assert "Number of finished trials: 1\n" in output
    log = (folder / "trials" / "0000" / "rmldnn.log").read_text()
    assert "All done (return value = 0)." in log
    assert log.count("Eval  Epoch [  2/  2]") == 1
    finish(type_in("infer", "--no-gpu", "--num_procs", "2"))
    first, second = (read(folder / "predictions" / f"output_{rank}.h5") for rank in (1, 2))
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)


def test_data_and_network_outside_the_working_directory(type_in, folder, files):
    for name in ("data", "layers.json"):
        shutil.move(folder / name, folder.parent / name)
    arguments = [*SEARCH, "--data", str(folder.parent / "data")]
    arguments[arguments.index("layers.json")] = "../layers.json"
    finish(type_in(*arguments))
    output = finish(type_in("infer", "--no-gpu", "--gallery", "gallery.png"))
    assert "The gallery is in gallery.png" in output
    assert (folder / "gallery.png").stat().st_size > 10_000


def test_trials_share_containers_and_come_to_what_those_of_their_own_do(type_in, folder, containers, monkeypatch):
    command = ["-nt", "4", *SEARCH[2:], "--jobs", "2", "--pruner", "none", "--sampler", "random"]
    seen = set()

    def results(**options):
        process = type_in(*command, **options)
        while process.poll() is None:
            seen.update(container.id for container in containers())
            time.sleep(0.1)
        finish(process)
        entries = json.loads((folder / "list_acc.json").read_text())
        # Others have a digest if they were the best when they ended, and which of two ends first is chance.
        best = max(entries, key=lambda entry: (entry["max_acc"], -entry["number"]))
        return {entry["number"]: entry["max_acc"] for entry in entries}, best["checkpoint_sha256"]

    warm = results()
    assert len(seen) == 2
    monkeypatch.setenv("RML_COLD", "1")
    command.append("--fresh")
    assert results() == warm
    assert len(seen) == 2 + 4


def test_ctrl_c_leaves_no_container_and_keeps_what_had_finished(type_in, folder, containers):
    process = type_in("-nt", "500", *SEARCH[2:])
    wait_for((folder / "list_acc.json").exists)
    wait_for(containers)
    process.send_signal(signal.SIGINT)
    output = finish(process, code=130)
    assert "Number of finished trials:" in output
    assert "Stopped by Ctrl-C; finished work is kept. Run the same command again to resume\n" in output
    assert containers() == []
    assert (folder / "best_model" / "best_model_file.pt").exists()


def test_a_killed_container_is_a_failed_trial_with_its_reason_and_tried_again(type_in, folder, containers):
    process = type_in("-nt", "2", "-ne", "300", *SEARCH[4:])
    log = folder / "trials" / "0000" / "rmldnn.log"
    wait_for(lambda: log.exists() and "Eval" in log.read_text())
    containers()[0].kill()
    second = folder / "trials" / "0001" / "rmldnn.log"
    wait_for(lambda: second.exists() and "Eval" in second.read_text())
    process.send_signal(signal.SIGTERM)
    finish(process, code=143)
    first, again = json.loads((folder / "list_acc.json").read_text())
    assert (first["state"], first["tried_again"]) == ("failed", True)
    assert first["reason"] == "the engine was stopped by SIGKILL"
    assert [first[key] for key in ("optimizer", "loss", "lr")] == [again[key] for key in ("optimizer", "loss", "lr")]
    assert containers() == []


def test_what_a_killed_search_has_left_goes_with_the_next_one(type_in, folder, containers):
    killed = type_in("-nt", "1", "-ne", "10000", *SEARCH[4:])
    (left,) = wait_for(lambda: [container for container in containers() if container.status == "running"])
    killed.kill()
    killed.communicate()
    # Its worker has nobody to work for any more, and ends by itself.
    wait_for(lambda: [container.status for container in containers()] == ["exited"])
    assert containers() == [left]
    finish(type_in("-nt", "1", *SEARCH[2:], "--fresh"))
    assert containers() == []


def test_a_killed_search_goes_on_and_removes_its_containers(type_in, folder, containers):
    command = ["-nt", "3", *SEARCH[2:], "--jobs", "2"]
    killed = type_in(*command)
    wait_for(lambda: len(containers()) == 2)
    killed.kill()
    killed.communicate()
    left = {container.id for container in containers()}
    output = finish(type_in(*command))
    assert "had not finished when the search was killed: retried first" in output
    assert containers() == []
    assert left
    entries = json.loads((folder / "list_acc.json").read_text())
    assert sum(entry["state"] == "complete" for entry in entries) == 3
    assert sum(entry["tried_again"] for entry in entries) == 2
    digest = subprocess.run(
        ["sha256sum", "--check", "best_model_file.pt.sha256"],
        cwd=folder / "best_model",
        capture_output=True,
        check=False,
    )
    assert digest.returncode == 0


@pytest.mark.timeout(1200)
def test_nothing_is_lost_whenever_the_driver_or_a_container_is_killed(type_in, folder, containers):
    def start(num_trials: int) -> subprocess.Popen[str]:
        tries = ["--retries", "100", "--max-consecutive-failures", "100"]
        return type_in("-nt", str(num_trials), *SEARCH[2:], "--jobs", "2", "--pruner", "none", *tries)

    def engines() -> list[Callable[[], object]]:
        return [partial(kill, container) for container in containers()]

    faults = FaultySearch(Workspace(folder), start, engines, longest_seconds=10.0)
    faults.run()
    print(faults.table("containers"))
    faults.check()
    assert (faults.num_kills, faults.lost, containers()) == (NUM_KILLS, set(), [])
    assert faults.num_failures >= 5


def kill(container) -> None:
    """Kills a container, unless it has ended by itself."""
    with contextlib.suppress(docker.errors.APIError):
        container.kill()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("debian:bookworm-slim", "has no command rmldnn"),
        ("no-such-image-anywhere:1", "cannot be pulled"),
    ],
)
def test_an_image_that_is_of_no_use_is_one_line(type_in, folder, containers, image, message):
    output = finish(type_in(*SEARCH, image=image), code=69)
    assert message in output.splitlines()[-1]
    assert containers() == []


def test_a_gpu_that_docker_cannot_give_is_one_line(docker_client, docker_image, folder):
    from rml_search.errors import RuntimeUnavailableError
    from rml_search.runtime.base import EngineRun
    from rml_search.runtime.docker import DockerRuntime

    if shutil.which("nvidia-container-cli"):
        return  # Here Docker can.
    runtime = DockerRuntime(Workspace(folder), docker_image, gpu=True)
    with pytest.raises(RuntimeUnavailableError, match="NVIDIA Container Toolkit, or use --no-gpu"):
        runtime.start(EngineRun(Path("config.json"))).__enter__()
    assert docker_client.containers.list(all=True, filters={"label": f"{LABEL}={folder}"}) == []
