"""Errors of Docker that need no engine; what needs one is in tests/docker."""

from __future__ import annotations

import pytest
from docker.errors import DockerException

from rml_search.errors import RuntimeUnavailableError
from rml_search.runtime import docker


def test_no_engine_is_one_line_that_says_what_to_do(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    with pytest.raises(RuntimeUnavailableError, match=r"no Docker engine answers .*--runtime local") as caught:
        docker.DockerRuntime(workspace, "x", gpu=False).prepare()
    assert "\n" not in str(caught.value)


def test_no_permission_names_the_group(workspace, monkeypatch):
    # Raised as the SDK raises it: root, as whom tests often run, is never refused.
    def refuse():
        raise DockerException(
            "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))"
        )

    monkeypatch.setattr(docker, "from_env", refuse)
    with pytest.raises(RuntimeUnavailableError, match="add yourself to the group docker"):
        docker.DockerRuntime(workspace, "x", gpu=False).prepare()
