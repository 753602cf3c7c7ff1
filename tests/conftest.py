"""What all tests share: the rule that CI skips nothing, and the things outside the checkout that some tests need."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parent.parent

#: RML_ENGINE_IMAGE names another, where that of this name belongs to another checkout.
ENGINE_IMAGE = os.environ.get("RML_ENGINE_IMAGE", "rmldnn-torch:latest")


def source_digests(folder: Path) -> dict[str, str]:
    """Path relative to a folder -> SHA-256 of every source file of the two packages that the image holds."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for package in ("rmldnn_contract", "rmldnn_torch")
        for path in (folder / package).rglob("*.py")
    }


#: A program for the image, where ``source_digests`` reads the installed packages.
PRINT_DIGESTS = f"""
import hashlib, json, sysconfig
from pathlib import Path
{inspect.getsource(source_digests)}
print(json.dumps(source_digests(Path(sysconfig.get_path("purelib")))))
"""


def _fail_if_skipped_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Where CI is true, turn a skip into a failure that gives the skip's reason.

    On a person's machine a test may say that it cannot run there. CI provides everything, so a skip
    there would hide that a part of the project is no longer tested. An expected failure (xfail)
    is reported as skipped too, but did run.
    """
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing, but this was to be skipped. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply the rule to a test that is skipped by itself, by a mark or by a fixture."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply the rule to a module that is skipped as a whole, for example by ``importorskip``."""
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def _heed_ctrl_c() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and every child would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def busi_dir() -> Path:
    """Folder of the breast-ultrasound images (BUSI): RML_BUSI, else ``../shared/busi`` beside the checkout.

    It holds ``Dataset_BUSI_with_GT/{benign,malignant,normal}`` and ``busi256.npz``; the tests only read it.
    """
    folder = Path(os.environ.get("RML_BUSI") or CHECKOUT.parent / "shared" / "busi")
    if not (folder / "Dataset_BUSI_with_GT").is_dir():
        pytest.skip(f"no BUSI images in {folder}; name their folder in the environment variable RML_BUSI")
    return folder


@pytest.fixture(scope="session")
def docker_client() -> Iterator[DockerClient]:
    """A client of a Docker engine that answers."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
    except DockerException as error:
        pytest.skip(f"no Docker engine responds: {error}")
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="session")
def docker_image(docker_client: DockerClient) -> str:
    """Name of the engine's image, which the Docker engine holds and which was built from this checkout."""
    from docker.errors import ImageNotFound

    try:
        docker_client.images.get(ENGINE_IMAGE)
    except ImageNotFound:
        pytest.skip(f"the Docker engine has no image {ENGINE_IMAGE}; build it with `make image`")
    listing = docker_client.containers.run(ENGINE_IMAGE, ["python", "-c", PRINT_DIGESTS], remove=True)
    digests = json.loads(listing)
    if digests != source_digests(CHECKOUT):
        pytest.skip(f"the image {ENGINE_IMAGE} holds another state of the engine; build it anew with `make image`")
    return ENGINE_IMAGE
