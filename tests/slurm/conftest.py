"""A Slurm of the tests' own: one node, one partition, on free ports and with a key and a socket of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Programs that a Slurm needs, as Debian's packages slurm-wlm and munge bring them.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

# A job that was killed by SIGKILL is requeued, as all are of a node that fails.
# A requeued job waits until the credential of its last run has expired, two minutes unless told otherwise.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
ReturnToService=2
RequeueExit=137
KillWait=10
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def wait_until(condition: object, seconds: float, what: str) -> object:
    """The first answer of ``condition`` that is true. Fails after so many seconds."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.1)
    return answer


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    log = (folder / f"{command[0]}.output").open("wb")
    with log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def _answers(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return answer.stdout if answer.returncode == 0 else ""


@pytest.fixture(scope="session")
def slurm(monkeypatch_session: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Slurm that runs, which the environment names for all programs of Slurm; its folder of logs."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no Slurm here: {', '.join(missing)} missing; apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("only root can start a Slurm")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path, as sockets need
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    controller_port, node_port = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    configuration = CONFIGURATION.format(host=host, folder=folder, controller_port=controller_port, node_port=node_port)
    (folder / "slurm.conf").write_text(configuration)
    # Any two devices will do, where nothing confines a job to its own: these are as /dev/null is.
    devices = [folder / f"gpu{number}" for number in range(2)]
    for device in devices:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={device}\n" for device in devices))
    monkeypatch_session.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/munge.key"]
    munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("log", "pid", "seed")]
    daemons = [_start(folder, "munged", *munge)]
    try:
        wait_until((folder / "munge.socket").exists, 20, "munged")
        daemons += [_start(folder, "slurmctld", "-D"), _start(folder, "slurmd", "-D", "-N", host)]
        wait_until(lambda: "idle" in _answers("sinfo", "--noheader", "--format=%t"), 60, f"Slurm, logs in {folder}")
        yield folder
    finally:
        _answers("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not _answers("squeue", "--noheader"), 20, "the end of the last job")
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    """pytest's ``monkeypatch`` for the whole session."""
    with pytest.MonkeyPatch.context() as patch:
        yield patch
