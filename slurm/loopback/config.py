"""The text of slurm.conf and slurmdbd.conf. Timers are short, so that tests see faults in seconds."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import UserError
from slurm.loopback.layout import Layout
from slurm.loopback.ports import LOOPBACK, hostname_is_loopback

CLUSTER = ACCOUNT = "loopback"
LOOPBACK_ONLY = "NoInAddrAny,NoCtldInAddrAny"  # do not listen on every address of the machine


@dataclass(frozen=True)
class Settings:
    """The settings of one cluster, stored in its loopback.json."""

    nodes: int = 4
    cpus: int = 4  # that each node claims; the sum may exceed the machine's
    memory: int = 8000  # MB that each node claims
    gpus: int = 0  # that each node claims
    controller_port: int = 0
    accounting_port: int = 0
    node_ports: tuple[int, ...] = ()
    # Keys of slurm.conf, in place of ours or added; "" leaves a key at SLURM's own value.
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def node_names(self) -> list[str]:
        return [f"node{i}" for i in range(1, self.nodes + 1)]

    def check(self) -> None:
        """Check the settings.

        Raises:
            UserError: a number is out of range, or a key cannot be set.
        """
        for name, most in (("nodes", 64), ("cpus", 1024), ("memory", 10**7)):
            if not 1 <= (number := getattr(self, name)) <= most:
                raise UserError(f"--{name} {number}: expected 1 to {most}")
        if not 0 <= self.gpus <= 64:
            raise UserError(f"--gpus {self.gpus}: expected 0 to 64")
        for key, value in self.extra.items():
            if not key.isalnum() or "\n" in value or key.lower() in _FIXED:
                raise UserError(f"--set {key}: not a key of slurm.conf that can be changed here")


_FIXED = {"include", "clustername", "slurmctldhost", "nodename", "partitionname", "slurmuser", "slurmduser"}


def slurm_conf(settings: Settings, layout: Layout) -> str:
    """Return slurm.conf: loopback addresses, short timers, and the cluster's nodes and partitions."""
    host, user = socket.gethostname().split(".")[0], user_name()
    values: dict[str, object] = {
        "ClusterName": CLUSTER,
        "SlurmctldHost": f"{host}({LOOPBACK})",
        "SlurmctldPort": settings.controller_port,
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        # cred_expire is also how long a requeued job waits before it may start again; SLURM's default is 120 s.
        "AuthInfo": f"socket={layout.munge_socket},cred_expire=10",
        "StateSaveLocation": layout.controller_state,
        "SlurmdSpoolDir": layout.spool / "%n",
        "SlurmctldPidFile": layout.run / "slurmctld.own.pid",
        "SlurmdPidFile": layout.run / "%n.own.pid",
        "SlurmctldLogFile": layout.log("slurmctld"),
        "SlurmdLogFile": layout.logs / "%n.log",
        "MailProg": "/bin/true",
        # Nodes: their claims are believed, and one that comes back is used again, whatever took it down.
        "SlurmdParameters": "config_overrides",
        "ReturnToService": 2,
        "TaskPlugin": "task/none",
        "ProctrackType": "proctrack/linuxproc",
        # Scheduling.
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "batch_sched_delay=0,bf_interval=2,sched_interval=5,sched_min_interval=0",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": max(1, settings.memory // settings.cpus),
        "JobRequeue": 1,
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "preempt_send_user_signal",  # sbatch's --signal instead of SIGTERM
        "GresTypes": "gpu",
        "MaxArraySize": 1001,
        "MaxJobCount": 10000,
        "MinJobAge": 300,
        # Timers.
        "SlurmdTimeout": 10,
        "SlurmctldTimeout": 10,
        "MessageTimeout": 5,  # also how long the controller tries to reach a silent node, three times over
        "BatchStartTimeout": 10,
        "KillWait": 3,
        "InactiveLimit": 30,
        "CompleteWait": 0,
        # Accounting. OverMemoryKill kills a job beyond its memory without cgroups; it ends FAILED or CANCELLED with
        # "exceeded memory limit" in its stderr, as the state OUT_OF_MEMORY is known to cgroups only.
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": LOOPBACK,
        "AccountingStoragePort": settings.accounting_port,
        "AccountingStoragePass": layout.munge_socket,
        "AccountingStorageEnforce": "associations,limits",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherFrequency": "task=2",
        "JobAcctGatherParams": "OverMemoryKill",
    }
    if hostname_is_loopback():
        values["CommunicationParameters"] = LOOPBACK_ONLY
    replaced = {k.lower(): (k, v) for k, v in settings.extra.items()}
    lines = [f"{k}={v}" for k, v in values.items() if k.lower() not in replaced]
    lines += [f"{k}={v}" for k, v in replaced.values() if v]
    lines += [
        f"NodeName={name} NodeHostname={host} NodeAddr={LOOPBACK} Port={port} "
        f"CPUs={settings.cpus} RealMemory={settings.memory} Gres=gpu:{settings.gpus} State=UNKNOWN"
        for name, port in zip(settings.node_names, settings.node_ports, strict=True)
    ]
    # A job preempts those of partitions with a lower tier; what becomes of it is its own partition's PreemptMode.
    # GraceTime lies between the signal and the kill; none in main, so that a job there is preempted without warning.
    for name, tier, mode, grace in (
        ("main", 10, "REQUEUE", 0),
        ("high", 20, "OFF", 0),
        ("low", 1, "REQUEUE", 5),
        ("lowcancel", 1, "CANCEL", 5),
    ):
        lines.append(
            f"PartitionName={name} Nodes=ALL Default={'YES' if name == 'main' else 'NO'} PriorityTier={tier} "
            f"PreemptMode={mode} GraceTime={grace} MaxTime=UNLIMITED DefaultTime=60 State=UP"
        )
    return "\n".join(lines) + "\n"


def gres_conf(settings: Settings, layout: Layout) -> str:
    """Return gres.conf: by a GPU's file SLURM numbers it in CUDA_VISIBLE_DEVICES; without one it sets nothing."""
    return "".join(f"Name=gpu File={layout.gpu(number)}\n" for number in range(settings.gpus))


def slurmdbd_conf(settings: Settings, layout: Layout) -> str:
    """Return slurmdbd.conf. MariaDB has a unix socket only; slurmdbd finds it by MYSQL_UNIX_PORT in its environment."""
    values: dict[str, object] = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={layout.munge_socket}",
        "DbdHost": "localhost",
        "DbdAddr": LOOPBACK,
        "DbdPort": settings.accounting_port,
        "SlurmUser": user_name(),
        "PidFile": layout.run / "slurmdbd.own.pid",
        "LogFile": layout.log("slurmdbd"),
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "root",
        "StorageLoc": "slurm_acct_db",
    }
    if hostname_is_loopback():
        values["CommunicationParameters"] = LOOPBACK_ONLY
    return "".join(f"{k}={v}\n" for k, v in values.items())


def user_name() -> str:
    """Return the account's name from the machine's database, which SLURM asks too, and not from $USER."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise UserError(f"user id {os.geteuid()} has no name on this machine; SLURM needs one") from None
