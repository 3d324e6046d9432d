#!/usr/bin/env bash
# SLURM 22.05.8 (Debian 12): `scontrol requeue` of a job that is suspended, as by a partition that preempts by suspension or by `scontrol suspend`,
# never starts again by itself. The command succeeds, the job goes back into the queue with one restart more, but with priority 0 and the reason
# JobHeldAdmin, as if somebody had held it; nothing was held, and `scontrol release` lets it go on. The same of a running job waits for its
# begin time and then starts. So a script that requeues all of a user's jobs for a maintenance strands those that happen to be suspended.
# Seen as root, with a controller and a node that this script starts: reason and priority 0 or above, once the requeued job has left its node.
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
NodeName=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
"$folder/root/usr/sbin/slurmctld-wlm" -D -f "$SLURM_CONF" > "$folder/slurmctld.log" 2>&1 &
"$folder/root/usr/sbin/slurmd-wlm" -d "$folder/root/usr/sbin/slurmstepd-wlm" -D -f "$SLURM_CONF" > "$folder/slurmd.log" 2>&1 &
for _ in $(seq 150); do sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break; sleep 0.2; done
wait_for() { for _ in $(seq 150); do [ "$(squeue --noheader --jobs="$1" --format=%T)" = "$2" ] && return; sleep 0.2; done; squeue; exit 1; }
seen=
for how in RUNNING SUSPENDED; do
  id="$(sbatch --parsable --output=/dev/null --wrap "sleep 600")"
  wait_for "$id" RUNNING
  if [ $how = SUSPENDED ]; then scontrol suspend "$id"; wait_for "$id" SUSPENDED; fi
  scontrol requeue "$id"
  wait_for "$id" PENDING
  priority="$(squeue --noheader --jobs="$id" --format=%Q)"
  seen="$seen$how: $(squeue --noheader --jobs="$id" --format=%r), priority $([ "$priority" = 0 ] && echo 0 || echo above 0); "
done
scontrol release "$id"
seen="${seen}released: $(squeue --noheader --jobs="$id" --format=%r | grep -q Held && echo held || echo not held)"
echo "a job that was requeued when it was $seen"
test "$seen" = "RUNNING: BeginTime, priority above 0; SUSPENDED: JobHeldAdmin, priority 0; released: not held"
