#!/usr/bin/env bash
# SLURM 22.05.8 (Debian 12): what `sbatch` refuses, `scontrol update` takes without a word. A job that excludes every node of its partition, or that
# asks for more memory than any node has, is refused at submission: "Requested node configuration is not available". The same asked for by an update
# of a job that waits (`ExcNodeList=`, `MinMemoryNode=`) ends with exit code 0, and the job then waits for ever, with the reason BadConstraints.
# An update to memory that a node has lets it start. So a job that asks for more of something at each retry, or for other nodes, must know
# the limit itself, or it ends as a job that waits and that nobody counts as failed.
# Seen as root, with a controller and a node of 1000 MB that this script starts, without accounting; the job is held while it is changed.
set -euo pipefail
folder="$(mktemp -d)"
cleanup() { pkill -KILL -f "$folder/root" || true; wait 2> /dev/null || true; rm -rf "$folder"; }
trap cleanup EXIT
mkdir -p "$folder"/{debs,root,state,spool}
version=22.05.8-4+deb12u3
(cd "$folder/debs" && apt-get download -qq slurmctld=$version slurmd=$version slurm-client=$version slurm-wlm-basic-plugins=$version \
  libmunge2 libhwloc15 libnuma1 2> "$folder/apt" || { cat "$folder/apt"; exit 1; })
for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$folder/root"; done
lib="$folder/root/usr/lib/x86_64-linux-gnu"
export LD_LIBRARY_PATH="$lib:$lib/slurm-wlm" PATH="$folder/root/usr/bin:$folder/root/usr/sbin:$PATH"
export SLURM_CONF="$folder/slurm.conf"
host="$(hostname -s)"
ports=($(python3 -c "
import socket
open_ = [socket.socket() for _ in range(2)]
for s in open_: s.bind(('127.0.0.1', 0))
print(*(s.getsockname()[1] for s in open_))"))
cat > "$SLURM_CONF" <<CONF
ClusterName=finding
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
PluginDir=$lib/slurm-wlm
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SchedulerParameters=batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
"$folder/root/usr/sbin/slurmctld-wlm" -D -f "$SLURM_CONF" > "$folder/slurmctld.log" 2>&1 &
"$folder/root/usr/sbin/slurmd-wlm" -d "$folder/root/usr/sbin/slurmstepd-wlm" -D -f "$SLURM_CONF" > "$folder/slurmd.log" 2>&1 &
for _ in $(seq 150); do sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break; sleep 0.2; done
refused() { ! sbatch --output=/dev/null "$@" --wrap true > /dev/null 2> "$folder/said" && grep -q "Requested node configuration is not available" "$folder/said" && echo refused; }
after_update() { # the reason of a job that was changed while it was held
  job="$(sbatch --parsable --hold --output=/dev/null --wrap true)"
  scontrol update jobid="$job" "$@" && scontrol release "$job"
  for _ in $(seq 50); do
    state="$(squeue --noheader --states=all --jobs="$job" --format='%T %r')"
    case "$state" in *BadConstraints | COMPLETED*) break ;; esac
    sleep 0.2
  done
  sleep 2
  squeue --noheader --states=all --jobs="$job" --format='%T %r'
}
seen="nodes: $(refused --exclude="$host"), $(after_update ExcNodeList="$host"); memory: $(refused --mem=2000), $(after_update MinMemoryNode=2000), $(after_update MinMemoryNode=500)"
echo "a job that no node can run, as it is submitted and as it is changed; one that a node can. $seen"
test "$seen" = "nodes: refused, PENDING BadConstraints; memory: refused, PENDING BadConstraints, COMPLETED None"
