"""Which links a container can follow; what it sees is played by a copy of the working directory at another place."""

from __future__ import annotations

import shutil

import pytest

from rml_search.errors import DataSetError
from rml_search.links import check_links
from rml_search.paths import Workspace

INPUTS = "data/train/inputs"


@pytest.fixture
def pool(workspace, tmp_path):
    """A picture in the working directory and one outside it."""
    for folder in (workspace.root / "pool", tmp_path / "elsewhere"):
        folder.mkdir()
        shutil.copy(workspace.root / INPUTS / "image 0.png", folder / "picture.png")
    return workspace.root / "pool" / "picture.png", tmp_path / "elsewhere" / "picture.png"


def container_finds(workspace, tmp_path, name):
    """Whether the file is there in a copy of the working directory, with its links as they are."""
    copy = tmp_path / "ubuntu"
    shutil.copytree(workspace.root, copy, symlinks=True)
    hidden = workspace.root.with_name("hidden")
    workspace.root.rename(hidden)  # an absolute link into it leads nowhere in a container
    try:
        return (copy / name).exists()
    finally:
        hidden.rename(workspace.root)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../../../pool/picture.png", None),
        ("image 0.png", None),
        ("over.png", None),
        ("{root}/pool/picture.png", "is a link to .*pool/picture.png, which a container cannot see"),
        ("{root}/../elsewhere/picture.png", "which a container cannot see.* cp -rL FOLDER COPY"),
        ("../../../../{name}/pool/picture.png", "which a container cannot see"),
        ("absolute.png", "which a container cannot see"),
        ("../linked pool/picture.png", "which a container cannot see"),
    ],
)
def test_a_link_is_refused_where_a_container_would_not_find_it(workspace, pool, tmp_path, target, message):
    root = workspace.root
    (root / INPUTS / "over.png").symlink_to("image 0.png")
    (root / "data/train/linked pool").symlink_to(root / "pool")
    (tmp_path / "absolute.png").symlink_to(root / "pool/picture.png")
    if target == "absolute.png":
        (root / "pool/absolute.png").symlink_to(root / "pool/picture.png")
        target = "../../../pool/absolute.png"
    link = root / INPUTS / "image 1.png"
    link.unlink()
    link.symlink_to(target.format(root=root, name=root.name))
    assert link.exists()
    assert container_finds(workspace, tmp_path, f"{INPUTS}/image 1.png") == (message is None)
    if message is None:
        check_links([root / INPUTS], workspace)
    else:
        with pytest.raises(DataSetError, match=message) as caught:
            check_links([root / "data/test/inputs", root / INPUTS], workspace)
        assert "\n" not in str(caught.value)
        assert "image 1.png" in str(caught.value)


def test_a_folder_outside_is_seen_and_what_lies_beside_it_is_not(workspace, tmp_path, pool):
    _, outside = pool
    folder = tmp_path / "disk" / "inputs"
    folder.mkdir(parents=True)
    shutil.copy(outside, folder / "a.png")
    (folder / "b.png").symlink_to("a.png")
    check_links([folder], workspace)
    (folder / "c.png").symlink_to("../../elsewhere/picture.png")
    with pytest.raises(DataSetError, match=r"c\.png is a link to"):
        check_links([folder], workspace)


def test_whole_folders_may_be_links_and_broken_or_hidden_ones_are_no_images(workspace, tmp_path, pool):
    _, outside = pool
    (workspace.root / "linked").symlink_to(outside.parent)
    (outside.parent / "broken.png").symlink_to("/nowhere.png")
    (outside.parent / ".hidden.png").symlink_to(outside)
    (outside.parent / "loop.png").symlink_to("loop.png")
    check_links([workspace.root / "linked", workspace.root / "missing"], workspace)


def test_the_working_directory_itself_may_be_behind_a_link(workspace, tmp_path, pool):
    (tmp_path / "short").symlink_to(workspace.root)
    (workspace.root / INPUTS / "image 1.png").unlink()
    (workspace.root / INPUTS / "image 1.png").symlink_to("../../../pool/picture.png")
    linked = Workspace(tmp_path / "short")
    check_links([tmp_path / "short" / INPUTS], linked)
