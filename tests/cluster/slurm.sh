#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for tests: munged, slurmctld and slurmd, all in one folder.
#
#   slurm.sh start FOLDER   starts it; then `SLURM_CONF=FOLDER/slurm.conf sinfo` and all other commands know it
#   slurm.sh stop FOLDER    ends it
#
# Needs root and Debian's packages: apt-get install slurmctld slurmd slurm-client munge
set -euo pipefail

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ $# -eq 2 ] || usage
command=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start() {
  for daemon in munged slurmctld slurmd; do
    command -v "$daemon" > /dev/null || { echo "slurm.sh: $daemon is not installed" >&2; exit 1; }
  done
  mkdir -p "$folder/state" "$folder/spool" "$folder/munge"
  chmod 755 "$folder"
  dd if=/dev/urandom of="$folder/munge/key" bs=1 count=128 2> /dev/null
  chmod 400 "$folder/munge/key"
  host=$(hostname -s)
  cat > "$folder/slurm.conf" <<CONF
ClusterName=metasynth
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket,cred_expire=2
CredType=cred/munge
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdSpoolDir=$folder/spool
StateSaveLocation=$folder/state
MailProg=/bin/true
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=5
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  munged --force --foreground --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge/munged.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" \
    > /dev/null 2>&1 < /dev/null &
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -f "$SLURM_CONF" -i
  slurmd -f "$SLURM_CONF"
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2> /dev/null || true)" = idle ] && return
    sleep 0.2
  done
  echo "slurm.sh: the node did not come up:" >&2
  tail -n 5 "$folder/slurmctld.log" "$folder/slurmd.log" >&2
  exit 1
}

stop() {
  for file in slurmd.pid slurmctld.pid munge/munged.pid; do
    [ -f "$folder/$file" ] && kill "$(cat "$folder/$file")" 2> /dev/null || true
  done
}

case $command in
  start) start ;;
  stop) stop ;;
  *) usage ;;
esac
