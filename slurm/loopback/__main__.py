"""``python -m slurm.loopback up | down | status``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.console.app import run_app
from harness.errors import EXIT_OK, EXIT_RUN_FAILED, UserError
from harness.phrases import plural
from slurm.loopback.cluster import Loopback
from slurm.loopback.cluster import down as take_down
from slurm.loopback.layout import default_folder
from slurm.loopback.ports import hostname_is_loopback

app = typer.Typer(
    help="Run a real SLURM on this machine, in one private folder, to try the cluster mode on a laptop. Needs the "
    "packages slurm-wlm, slurmdbd, munge and mariadb-server; see docs/loopback.md.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="The cluster's folder (default: $KD_LOOPBACK, else kd-loopback in $XDG_STATE_HOME or ~/.local/state).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


@app.command()
def up(
    nodes: Annotated[int, typer.Option(help="Number of nodes, 1 to 64.")] = 4,
    cpus: Annotated[int, typer.Option(help="CPUs that each node claims to have.")] = 4,
    memory: Annotated[int, typer.Option(help="Memory that each node claims to have, in MB.")] = 8000,
    gpus: Annotated[int, typer.Option(help="GPUs that each node claims to have; jobs that use one find none.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of slurm.conf, e.g. MaxArraySize=50. Repeatable."),
    ] = None,
    dir: Dir = None,
    json_: Json = False,
) -> None:
    """Start a cluster and print what to export: eval "$(python -m slurm.loopback up)"."""
    extra = {}
    for item in set_ or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: expected KEY=VALUE, e.g. --set MaxArraySize=50")
        extra[key] = value
    cluster = Loopback.up(dir or default_folder(), nodes, cpus, memory, extra, gpus)
    root = cluster.layout.root
    if not hostname_is_loopback():
        print(
            "note: this machine's name does not resolve to 127.0.0.1, so SLURM listens on its other addresses too; "
            "without the cluster's private munge key nobody can use it",
            file=sys.stderr,
        )
    if json_:
        print(json.dumps({"dir": str(root), "env": cluster.env, "nodes": cluster.settings.node_names}))
        return
    print(cluster.exports(), end="")
    print(
        f"{plural(nodes, 'node')} of {plural(cpus, 'CPU')} started. Later shells: . {cluster.layout.env_sh}\n"
        f"Stop it: python -m slurm.loopback down --dir {root}",
        file=sys.stderr,
    )


@app.command()
def down(dir: Dir = None, json_: Json = False) -> None:
    """End every process of the cluster, its jobs included, and remove its folder."""
    root = (dir or default_folder()).expanduser().resolve()
    existed = take_down(root)
    text = f"{root}: {'the cluster is down and its folder removed' if existed else 'no cluster in this folder'}"
    print(json.dumps({"dir": str(root), "found": existed}) if json_ else text)


@app.command()
def status(dir: Dir = None, json_: Json = False) -> None:
    """Show daemons, nodes, partitions and accounting. Exit code: 0 all work, 1 something does not."""
    cluster = Loopback.attach(dir or default_folder())
    daemons = cluster.daemons()
    nodes: dict[str, str] = {}
    partitions: list[str] = []
    if daemons["slurmctld"]:
        nodes, partitions = cluster.node_states(), cluster.partitions()
    accounting = bool(daemons["slurmdbd"]) and cluster.accounting_answers()
    bad_words = ("down", "drain", "fail", "unk", "*")
    usable = not any(word in state for state in nodes.values() for word in bad_words)
    healthy = accounting and all(daemons.values()) and usable
    if json_:
        report = {"dir": str(cluster.layout.root), "healthy": healthy, "daemons": daemons, "nodes": nodes}
        print(json.dumps({**report, "partitions": partitions, "accounting": accounting}))
    else:
        print(f"folder      {cluster.layout.root}")
        print(f"daemons     {'  '.join(n if pid else f'{n} (not running)' for n, pid in daemons.items())}")
        print(f"nodes       {'  '.join(f'{n}: {s}' for n, s in nodes.items()) or 'the controller does not run'}")
        print(f"partitions  {'  '.join(partitions)}")
        print(f"accounting  {'answers' if accounting else 'does not answer'}")
    sys.exit(EXIT_OK if healthy else EXIT_RUN_FAILED)


if __name__ == "__main__":
    run_app(app)
