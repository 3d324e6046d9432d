#!/usr/bin/env bash
# SLURM 22.05.8 (Debian 12): an array's last task is not told its own number. In every other task SLURM_JOB_ID is the number of that task's job; in
# the last one it is the number of the whole array, which `scontrol requeue`, `squeue --jobs` and `scancel` take for all tasks. So a job script
# that ends with the usual `scontrol requeue $SLURM_JOB_ID` at its time limit interrupts every other task of the array too, but only from one task.
# "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" names the task alone.
# Seen as root, with a controller and a node that this script starts, and an array of three running tasks: after the first has requeued its
# "$SLURM_JOB_ID", two tasks run; after the last has, none.
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
running() { squeue --noheader --array --states=RUNNING --format=%i | wc -l; }
wait_for() { for _ in $(seq 150); do [ "$(running 2> /dev/null || true)" = "$1" ] && return; sleep 0.2; done; tail "$folder"/*.log; exit 1; }
after() { # which task requeues what it takes for its own number
  scancel --user=root; wait_for 0
  cat > "$folder/job.sh" <<JOB
#!/bin/bash
if [ "\$SLURM_ARRAY_TASK_ID" = $1 ] && [ "\${SLURM_RESTART_COUNT:-0}" = 0 ]; then
  while [ ! -e "$folder/go" ]; do sleep 0.1; done
  scontrol requeue "\$SLURM_JOB_ID"
fi
sleep 60
JOB
  rm -f "$folder/go"
  sbatch --parsable --array=1-3 --output=/dev/null "$folder/job.sh" > /dev/null
  wait_for 3
  touch "$folder/go"
  sleep 5
  running
}
for _ in $(seq 150); do sinfo --noheader --format=%T 2> /dev/null | grep -q idle && break; sleep 0.2; done
seen="$(after 1), $(after 3)"
echo "tasks that run after the first, and after the last of three has requeued its SLURM_JOB_ID: $seen"
test "$seen" = "2, 0"
