#!/usr/bin/env bash
# SLURM 22.05.8 (Debian 12): `--dependency=afterok:N` holds a job back only while the controller remembers job N, which it does for MinJobAge seconds
# (300 by default) after N has ended. A job that is submitted later starts at once, although N has failed; and so does one that waits for a number
# that no job ever had. Neither is refused, or pending as DependencyNeverSatisfied, which is what becomes of one that is submitted in time.
# So a student's job that is submitted an hour after its teacher's has failed starts as if the teacher had succeeded: whoever chains jobs
# must look for the result of the first in the second.
# Seen as root, with a controller and a node that this script starts, without accounting, MinJobAge=2; the job that is waited for exits with 1.
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
MinJobAge=2
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
submit() { sbatch --parsable --output=/dev/null "$@"; }
outcome() { # of a job: its state and reason once it has one, or that it has begun
  for _ in $(seq 50); do
    if [ -e "$folder/began.$1" ]; then echo started; return; fi
    if squeue --noheader --jobs="$2" --format=%r | grep -q DependencyNeverSatisfied; then echo DependencyNeverSatisfied; return; fi
    sleep 0.2
  done
  echo waits
}
failed="$(submit --wrap "exit 1")"
for _ in $(seq 100); do scontrol show job "$failed" | grep -q JobState=FAILED && break; sleep 0.1; done
seen="$(outcome early "$(submit --dependency="afterok:$failed" --wrap "touch '$folder/began.early'")")"
for _ in $(seq 600); do scontrol show job "$failed" > /dev/null 2>&1 || break; sleep 0.2; done # the controller forgets once in a while
for job in late:$failed never:9999; do
  seen="$seen, $(outcome "${job%:*}" "$(submit --dependency="afterok:${job#*:}" --wrap "touch '$folder/began.${job%:*}'")")"
done
echo "afterok of a job that has failed, of the same once it is forgotten, of a number that never was: $seen"
test "$seen" = "DependencyNeverSatisfied, started, started"
