"""A loopback cluster: starting it, ending it, and faults on demand."""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from harness.errors import UserError, unknown
from slurm.loopback import config, packages, processes
from slurm.loopback.config import Settings
from slurm.loopback.layout import Layout
from slurm.loopback.ports import LOOPBACK, Reservation

START_SECONDS = 60  # for each step of a start; a machine may be loaded, and a daemon that breaks is noticed earlier
MARIADB = [  # a throw-away database, which need not survive a power cut
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-flush-method=nosync",
    "--innodb-use-native-aio=0",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=64M",
    "--innodb-lock-wait-timeout=900",
    "--performance-schema=off",
    "--skip-log-bin",
]


class Loopback:
    """A running cluster.

        with Loopback.up(folder, nodes=4) as cluster:
            subprocess.run(["sbatch", ...], env={**os.environ, **cluster.env})

    Leaving the block ends it. If this process dies before that, ``python -m slurm.loopback down`` ends it.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.layout, self.settings = Layout(root), settings

    @classmethod
    def up(
        cls, root: str | Path, nodes: int = 4, cpus: int = 4, memory: int = 8000,
        extra: Mapping[str, str] | None = None, gpus: int = 0,
    ) -> "Loopback":  # fmt: skip
        """Start a cluster and wait until its nodes are idle and accounting answers.

        Args:
            root: its private folder; must be absent or empty.
            cpus, memory: what each node claims to have, memory in MB; it may be more than the machine has.
            extra: keys of slurm.conf, in place of the defaults or in addition.
            gpus: what each node claims to have; a job that asks for some gets CUDA_VISIBLE_DEVICES, and no GPU.

        Raises:
            UserError: a package or a permission is missing, or a daemon did not start. Nothing is left behind.
        """
        settings = Settings(nodes, cpus, memory, gpus, extra=dict(extra or {}))
        settings.check()
        packages.require()
        layout = Layout(_resolve(root))
        layout.check_length(settings.node_names)
        _claim(layout)
        cluster = cls(layout.root, settings)
        try:
            cluster._start()
        except BaseException:
            down(layout.root)
            raise
        return cluster

    @classmethod
    def attach(cls, root: str | Path) -> "Loopback":
        """Return the cluster of the folder ``root``.

        Raises:
            UserError: there is none, or its start failed early.
        """
        layout = Layout(_resolve(root))
        try:
            value = json.loads(layout.state.read_text())
            return cls(layout.root, Settings(**{**value, "node_ports": tuple(value["node_ports"])}))
        except FileNotFoundError:
            raise UserError(
                f"{layout.root}: no cluster in this folder; start one with: python -m slurm.loopback up"
            ) from None
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{layout.root}: the start of its cluster was interrupted; "
                f"clean up with: python -m slurm.loopback down --dir {layout.root}"
            ) from None

    def __enter__(self) -> "Loopback":
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def down(self) -> None:
        """End every process of the cluster, its jobs included, and remove its folder."""
        down(self.layout.root)

    @property
    def env(self) -> dict[str, str]:
        """The variables that make sbatch, squeue, sacct and scontrol use this cluster."""
        return {"SLURM_CONF": str(self.layout.slurm_conf), "KD_LOOPBACK": str(self.layout.root)}

    def configure(self, **extra: str) -> None:
        """Set keys of slurm.conf while the cluster runs; "" brings back SLURM's own value.

        Raises:
            UserError: a key cannot be set, or takes effect at a start only.
        """
        self.settings = replace(self.settings, extra={**self.settings.extra, **extra})
        self.settings.check()
        self._write_config()
        self.client("scontrol", "reconfigure")

    def kill_node(self, name: str, jobs: bool = True, report: bool = False) -> None:
        """Kill a node, as when its machine loses power; with ``jobs=False`` only slurmd dies and its jobs continue.

        The controller notices after 15 to 20 s; with ``report`` at once.
        """
        self._check_node(name)
        pids = {pid} if (pid := processes.alive(self.layout.pid(name))) else set()
        if jobs:
            pids |= processes.of_cluster(self.layout.root, self.layout.slurm_conf, node=name)
        processes.end(pids)
        if report:
            self.client("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")

    def start_node(self, name: str) -> None:
        """Start the node's slurmd again; the node is in use as soon as it has registered."""
        self._check_node(name)
        if not processes.alive(self.layout.pid(name)):
            self._spawn_node(name)

    def restart_controller(self) -> None:
        """End slurmctld and start it again, which brings keys into force that it reads at a start only; jobs go on."""
        if pid := processes.alive(self.layout.pid("slurmctld")):
            processes.end([pid], grace=20)
        self._start_controller()

    def stop_accounting(self) -> None:
        """End slurmdbd: sacct fails; the controller continues and sends its accounts later."""
        if pid := processes.alive(self.layout.pid("slurmdbd")):
            processes.end([pid], grace=5)

    def start_accounting(self) -> None:
        if not processes.alive(self.layout.pid("slurmdbd")):
            self._start_slurmdbd()

    def node_states(self) -> dict[str, str]:
        """Return node -> its state as SLURM names it: idle, allocated, down, ... ``*``: it does not respond."""
        words = self.client("sinfo", "-h", "-N", "-o", "%N %T").split()
        return dict(zip(words[::2], words[1::2], strict=True))

    def partitions(self) -> list[str]:
        return self.client("sinfo", "-h", "-o", "%R").split()

    def daemons(self) -> dict[str, int | None]:
        """Return daemon -> its process id; None when it does not run."""
        names = ["munged", "mariadbd", "slurmdbd", "slurmctld", *self.settings.node_names]
        return {name: processes.alive(self.layout.pid(name)) for name in names}

    def accounting_answers(self) -> bool:
        try:
            return config.CLUSTER in self.client("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split()
        except UserError:
            return False

    def wait_for_nodes(self, state: str, *names: str, seconds: float = START_SECONDS) -> None:
        """Wait until the nodes (all when none is named) are in this state.

        Raises:
            UserError: they are not, after ``seconds``.
        """
        nodes, states = names or tuple(self.settings.node_names), dict[str, str]()

        def reached() -> bool:
            self._check_daemons("slurmctld")
            with contextlib.suppress(UserError):  # the controller is not listening yet
                states.update(self.node_states())
            return all(states.get(name, "").rstrip("*") == state for name in nodes)

        if not processes.wait_until(reached, seconds, pause=0.1):
            ended = [name for name in nodes if not processes.alive(self.layout.pid(name))]
            tail = self._log_tail(ended[0] if ended else "slurmctld")
            raise UserError(f"nodes are not {state} after {seconds:.0f} s: {states}. {tail}")

    def client(self, program: str, *arguments: str, seconds: float = 30) -> str:
        """Run one of SLURM's commands on this cluster and return what it prints.

        Raises:
            UserError: it failed.
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SINFO", "SACCT", "SQUEUE"))}
        env |= {**self.env, "PATH": packages.search_path()}
        try:
            result = subprocess.run(
                [program, *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{program} did not answer within {seconds:.0f} s") from None
        except FileNotFoundError:
            packages.require()
            raise
        if result.returncode:
            raise UserError(f"{program} {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
        return result.stdout

    def _start(self) -> None:
        layout = self.layout
        layout.make(self.settings.node_names)
        reservation = Reservation(2 + self.settings.nodes)
        controller, accounting, *nodes = reservation.ports
        self.settings = replace(
            self.settings, controller_port=controller, accounting_port=accounting, node_ports=tuple(nodes)
        )
        self._write_config()
        layout.gres_conf.write_text(config.gres_conf(self.settings, layout))
        for number in range(self.settings.gpus):
            layout.gpu(number).symlink_to(os.devnull)  # SLURM demands a device, and another name for each
        _write_private(layout.slurmdbd_conf, config.slurmdbd_conf(self.settings, layout).encode())
        _write_private(layout.munge_key, secrets.token_bytes(128))
        layout.env_sh.write_text(self.exports())

        self._start_munged()
        self._start_mariadbd()
        reservation.release(accounting)
        self._start_slurmdbd()
        self._register_user()
        reservation.release()
        self._start_controller()
        for name in self.settings.node_names:
            self._spawn_node(name)
        self.wait_for_nodes("idle")

    def _write_config(self) -> None:
        self.layout.state.write_text(json.dumps(asdict(self.settings), indent=1) + "\n")
        self.layout.slurm_conf.write_text(config.slurm_conf(self.settings, self.layout))

    def exports(self) -> str:
        """Return shell lines that export ``env``."""
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.env.items())

    def _start_munged(self) -> None:
        layout = self.layout
        # --force: munged demands a socket folder that is open to every user, and here no other user may reach it.
        command = ["munged", "--foreground", "--force", f"--socket={layout.munge_socket}"]
        command += [f"--key-file={layout.munge_key}", f"--seed-file={layout.munge_seed}", f"--origin={LOOPBACK}"]
        command += [f"--pid-file={layout.run / 'munged.own.pid'}", f"--log-file={layout.log('munged')}"]
        self._spawn("munged", command)

    def _start_mariadbd(self) -> None:
        layout, options = self.layout, ["--no-defaults", f"--datadir={self.layout.database}"]
        # A server that starts deletes every temporary table in its tmpdir, in /tmp also those of other servers.
        options.append(f"--tmpdir={layout.database_tables}")
        if os.geteuid() == 0:
            options.append("--user=root")
        with layout.log("mariadb-install-db").open("wb") as log:
            result = subprocess.run(
                ["mariadb-install-db", *options, "--auth-root-authentication-method=normal", "--skip-test-db"]
                + ["--force"]  # else it refuses where the host's own name does not resolve, which does not matter here
                + MARIADB,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=processes.marked(self._daemon_env(), layout.root),
            )
        if result.returncode:
            raise UserError(f"the database could not be made. {self._log_tail('mariadb-install-db')}")
        command = ["mariadbd", *options, *MARIADB, "--skip-networking"]
        command += [f"--socket={layout.database_socket}", f"--pid-file={layout.run / 'mariadbd.own.pid'}"]
        self._spawn("mariadbd", command)
        self._wait("mariadbd", lambda: _greets(layout.database_socket))
        self._wait("munged", layout.munge_socket.exists)

    def _start_slurmdbd(self) -> None:
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        self._wait("slurmdbd", lambda: _listens(self.settings.accounting_port))

    def _start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.layout.slurm_conf)])
        self._wait("slurmctld", lambda: _listens(self.settings.controller_port))

    def _register_user(self) -> None:
        """Register the user: without an association, jobs are refused or missing from sacct's answers."""
        user = config.user_name()
        self.client("sacctmgr", "-i", "add", "cluster", config.CLUSTER)
        self.client("sacctmgr", "-i", "add", "account", config.ACCOUNT, f"cluster={config.CLUSTER}")
        accounts = (f"account={config.ACCOUNT}", f"defaultaccount={config.ACCOUNT}")
        self.client("sacctmgr", "-i", "add", "user", user, *accounts, "adminlevel=admin")

    def _spawn_node(self, name: str) -> None:
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.layout.slurm_conf)])

    def _spawn(self, daemon: str, command: list[str]) -> None:
        out = self.layout.logs / f"{daemon}.out"  # its output before it has opened its log
        processes.spawn(command, self.layout.pid(daemon), out, self.layout.root, self._daemon_env())

    def _daemon_env(self) -> dict[str, str]:
        """Return a minimal environment: jobs get theirs from sbatch, and nothing of an outer SLURM may leak in."""
        return {
            "PATH": packages.search_path(),
            "HOME": str(self.layout.root),
            "LC_ALL": "C",
            "TZ": os.environ.get("TZ", ""),
            "SLURM_CONF": str(self.layout.slurm_conf),
            "MYSQL_UNIX_PORT": str(self.layout.database_socket),
        }

    def _wait(self, daemon: str, ready: Callable[[], bool]) -> None:
        def checked() -> bool:
            self._check_daemons(daemon)
            return ready()

        if not processes.wait_until(checked, START_SECONDS):
            raise UserError(f"{daemon} did not answer within {START_SECONDS} s. {self._log_tail(daemon)}")

    def _check_daemons(self, *names: str) -> None:
        for name in names:
            if not processes.alive(self.layout.pid(name)):
                raise UserError(f"{name} ended. {self._log_tail(name)}")

    def _check_node(self, name: str) -> None:
        if name not in self.settings.node_names:
            raise UserError(unknown("node", name, self.settings.node_names))

    def _log_tail(self, daemon: str, lines: int = 5) -> str:
        """Return the end of a daemon's log, for an error message: ``up`` removes the folder when it fails.

        Of MariaDB's log only the errors, if there are any: its tools print advice after them.
        """
        text = ""
        for path in (self.layout.logs / f"{daemon}.out", self.layout.log(daemon)):
            with contextlib.suppress(OSError):
                text = path.read_text(errors="replace").strip() or text
        told = [line for line in text.splitlines() if "ERROR" in line] or text.splitlines()
        return "Its log ends: " + " | ".join(told[-lines:]) if text else "It logged nothing."


def down(root: str | Path) -> bool:
    """End every process of the cluster in ``root`` and remove the folder, however far its start got.

    Returns:
        True when there was anything to clean up.

    Raises:
        UserError: the folder holds something else; it is not touched.
    """
    layout = Layout(_resolve(root))
    ended = False

    def left() -> set[int]:
        return processes.of_cluster(layout.root, layout.slurm_conf)

    def none_left() -> bool:  # a step may be starting while its slurmd is being killed
        nonlocal ended
        if pids := left():
            ended = True
            processes.end(pids)
        return not pids

    if not processes.wait_until(none_left, 30, pause=0):
        raise UserError(f"{layout.root}: some processes do not end: {left()}")
    if not layout.root.is_dir():
        return ended
    if any(layout.root.iterdir()) and not layout.state.exists():
        raise UserError(f"{layout.root}: not a loopback cluster's folder (no {layout.state.name}); nothing removed")
    _remove(layout)
    return True


def _remove(layout: Layout) -> None:
    """Remove the folder, loopback.json last, so that an interrupted ``down`` can be run again."""
    for entry in layout.root.iterdir():
        if entry == layout.state:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    layout.state.unlink(missing_ok=True)
    layout.root.rmdir()


def _claim(layout: Layout) -> None:
    """Claim the folder; of two starts in one folder at once, one wins.

    Raises:
        UserError: the folder is in use.
    """
    try:
        layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(p != layout.state for p in layout.root.iterdir()):
            lives = "holds a cluster" if layout.state.exists() else "not empty"
            hint = f"; stop it first: python -m slurm.loopback down --dir {layout.root}" * layout.state.exists()
            raise UserError(f"{layout.root}: {lives}{hint or '; give another --dir'}")
        layout.root.chmod(0o700)
        with layout.state.open("x"):
            pass
    except FileExistsError:
        raise UserError(f"{layout.root}: not a folder, or a cluster is being started in it") from None
    except OSError as e:
        raise UserError(f"{layout.root}: {e.strerror}; give another --dir") from None


def _resolve(root: str | Path) -> Path:
    return Path(root).expanduser().resolve()


def _write_private(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(content)


def _listens(port: int) -> bool:
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((LOOPBACK, port)) == 0


def _greets(unix_socket: Path) -> bool:
    """Return whether a MySQL server answers; it sends the first message."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        try:
            s.connect(str(unix_socket))
            return bool(s.recv(1))
        except OSError:
            return False
