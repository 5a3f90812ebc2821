#!/usr/bin/env bash
# A real SLURM cluster of one node on this machine, for tests/slurm; needs root, and Debian's
# slurm-wlm and munge. The node has two processors whatever the machine has: the tests run two tasks
# at a time (and `nproc` would say 1 wherever OMP_NUM_THREADS=1 is set).
#
#   cluster.sh start FOLDER    # prints what to set: SLURM_CONF
#   cluster.sh stop FOLDER
set -euo pipefail
action=$1 folder=$(realpath -m "$2")
conf=$folder/slurm.conf

start() {
  mkdir -p "$folder"/{state,spool,log}
  host=$(hostname -s)
  cat > "$conf" <<CONF
ClusterName=cardiac
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=1
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
MinJobAge=300
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  mkdir -p /run/munge && chown munge: /run/munge
  [ -e /etc/munge/munge.key ] || mungekey --create
  chown munge: /etc/munge/munge.key
  pgrep -x munged > /dev/null || runuser -u munge -- munged
  export SLURM_CONF=$conf
  slurmctld
  slurmd
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ] && break
    sleep 0.2
  done
  sinfo >&2
  echo "$conf"
}

stop() {
  for daemon in slurmd slurmctld; do
    [ -e "$folder/$daemon.pid" ] && kill "$(cat "$folder/$daemon.pid")" 2> /dev/null || true
  done
}

"$action"
