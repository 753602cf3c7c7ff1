"""Files that are replaced whole, and what kills have left of the writing."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rml_search.paths import Workspace
from rml_search.whole_files import remove_unfinished_files, replacing, write_atomically

NODE = platform.node()


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "list_acc.json"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "list_acc.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new" * 10**6 + "\udc80")
    with pytest.raises(FileNotFoundError), replacing(path) as temporary:
        (tmp_path / "missing").rename(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def killed_while_it_wrote(path: Path) -> int:
    """The number of a process that was killed with a half-written file beside ``path``."""
    program = (
        "import sys, time; from pathlib import Path; from rml_search.whole_files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print(flush=True); time.sleep(60)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    return process.pid


def test_what_killed_processes_left_goes_wherever_the_search_writes(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    files = [
        workspace.list_acc,
        workspace.trial(3).config,
        workspace.best_digest,
        workspace.top_model(2).layers,
        workspace.confirmed_model.config,
        workspace.part("confirmation/0001").list_acc,
    ]
    for path in files:
        assert path.with_name(f".{path.name}.{NODE}.{killed_while_it_wrote(path)}.tmp").exists()
    remove_unfinished_files(workspace)
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_all_else_stays(tmp_path: Path) -> None:
    """Files of a process at work, of another machine, of a person, and whatever lies among the data."""
    workspace = Workspace(tmp_path)
    ended = killed_while_it_wrote(tmp_path / "data" / "list_acc.json")
    staying = [
        tmp_path / "data" / f".list_acc.json.{NODE}.{ended}.tmp",
        tmp_path / f".list_acc.json.{NODE}.{os.getpid()}.tmp",
        tmp_path / f".list_acc.json.{NODE}.1.tmp",
        tmp_path / f".list_acc.json.not-{NODE}.{ended}.tmp",
        tmp_path / f".notes.json.{NODE}.{ended}.tmp",
        tmp_path / f"notes.{NODE}.{ended}.tmp",
        tmp_path / f".notes.{NODE}.first.tmp",
        tmp_path / ".notes.tmp",
    ]
    for path in staying:
        path.write_text("")
    remove_unfinished_files(workspace)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(staying)


def test_where_others_write_too_only_old_files_go(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    ended = killed_while_it_wrote(workspace.list_acc)
    left = {node: tmp_path / f".list_acc.json.{node}.{ended}.tmp" for node in (NODE, "another-machine")}
    left["another-machine"].write_text("")
    remove_unfinished_files(workspace, is_shared=True)
    assert all(path.exists() for path in left.values())
    left["report"] = workspace.report_page.with_name(f".report.html.{NODE}.{ended}.tmp")
    workspace.report.mkdir()
    left["report"].write_text("")
    remove_unfinished_files(workspace)
    assert left["report"].exists()
    left[NODE].touch()
    for path in left.values():
        two_days_ago = time.time() - 2 * 86400
        os.utime(path, (two_days_ago, two_days_ago))
    remove_unfinished_files(workspace, is_shared=True)
    assert not any(path.exists() for path in left.values())


def test_a_folder_without_results_is_no_error(tmp_path: Path) -> None:
    remove_unfinished_files(Workspace(tmp_path / "nothing"))
