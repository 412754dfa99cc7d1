#!/usr/bin/env bash
# A real Slurm on one Debian machine, without systemd: slurmctld, slurmdbd with MariaDB, some slurmd, munge.
# For development and CI only: everything runs as root and nothing confines a job. See README.md beside this file.
# Exit status: 0 done; 1 something failed on the way; 2 it cannot work here (the message says what to do);
#              `status` alone: 0 all nodes up, 1 running but not whole, 3 stopped.
set -euo pipefail

BASE=${PROX_SLURM_BASE:-/var/lib/prox-slurm}
NODES=${PROX_SLURM_NODES:-4}
CPUS=${PROX_SLURM_CPUS:-4}
GPUS=${PROX_SLURM_GPUS:-4}
MEM_MB=${PROX_SLURM_MEM_MB:-6000}
SLURMD_TIMEOUT=${PROX_SLURM_SLURMD_TIMEOUT:-20}
PORT=${PROX_SLURM_PORT:-16800}
CTLD_PORT=$((PORT + 17)) DBD_PORT=$((PORT + 19)) DB_PORT=$((PORT + 33)) NODE_PORT=$((PORT + 100))

HERE=$(cd "$(dirname "$0")" && pwd)
HOST=$(uname -n)
HOST=${HOST%%.*}
ETC=/etc/slurm                               # where Debian's Slurm looks without SLURM_CONF
MARK="Written by prox_hpc's slurm/devcluster.sh; edits are lost."
HOSTS_MARK='# prox-slurm'
PACKAGES=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server)
ACCOUNT=proxdev

# Nothing of the caller's own Slurm (a job, a module) may steer the commands below.
for name in $(compgen -v | grep -E '^S(LURM|BATCH|RUN|ALLOC|CONTROL|INFO|QUEUE|ACCT)_' || true); do unset "$name"; done
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C DEBIAN_FRONTEND=noninteractive

usage() {
    cat <<'EOF'
usage: devcluster.sh VERB
  start             install what is missing, start what is not running, wait until all nodes are up
  stop              stop everything but munge; running jobs die and are requeued by the next start
  restart           stop, start
  status            show nodes and queue; exit 0 all nodes up, 1 not all, 3 stopped
  wipe              stop, and remove jobs, accounting, logs and configuration (packages stay)
  kill-node NODE [--silent]
                    SIGKILL all of NODE's daemons and jobs and mark it DOWN;
                    (its jobs: NODE_FAIL and requeued);
                    --silent leaves it to the controller to notice (20-45 s)
  revive-node NODE  bring NODE back
EOF
}

say() { printf '[%3ds] %s\n' "$SECONDS" "$*"; }
fail() { printf 'devcluster: %s\n' "$*" >&2; exit 1; }
refuse() { printf 'devcluster: %s\n' "$*" >&2; exit 2; }

# wait_for SECONDS COMMAND...: until COMMAND succeeds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# pid_of NAME PIDFILE: the live process; a stale file whose number went to another program does not count.
pid_of() {
    local pid
    pid=$(cat "$BASE/pid/$2.pid" 2>/dev/null) && [[ -n $pid ]] && ! gone "$pid" "$1" && echo "$pid"
}

not_running() { ! pid_of "$1" "$2" >/dev/null; }
# gone PID NAME: ended, be it unreaped. A daemon removes its pid file well before that.
gone() { ! grep -qsE "^$1 \($2\) [^Z]" "/proc/$1/stat"; }

stop_daemon() {
    local pid
    pid=$(pid_of "$1" "$1") || return 0
    kill "$pid" 2>/dev/null || true
    wait_for 20 gone "$pid" "$1" || kill -KILL "$pid" 2>/dev/null || true
    wait_for 5 gone "$pid" "$1" || fail "$1 (process $pid) does not die"
    rm -f "$BASE/pid/$1.pid"
}

tcp_up() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }
need_root() { ((EUID == 0)) || refuse "'$verb' needs root; run it as root (sudo $0 $verb)"; }
node_names() { local i; for ((i = 1; i <= NODES; i++)); do echo "n$i"; done; }

# ---------------------------------------------------------------- start

check_settings() {
    local name
    for name in NODES CPUS GPUS MEM_MB SLURMD_TIMEOUT PORT; do
        [[ ${!name} =~ ^[0-9]{1,6}$ ]] || refuse "PROX_SLURM_$name='${!name}' is not a whole number; correct or unset it"
    done
    ((NODES >= 1 && NODES <= 9)) || refuse "PROX_SLURM_NODES=$NODES is not within 1-9; correct or unset it"
    ((CPUS >= 1 && MEM_MB >= 100)) || refuse "PROX_SLURM_CPUS must be 1 or more and PROX_SLURM_MEM_MB 100 or more"
    ((PORT >= 1024 && PORT <= 65000)) || refuse "PROX_SLURM_PORT=$PORT is not within 1024-65000; correct or unset it"
    [[ $BASE =~ ^/[A-Za-z0-9._/-]{1,80}$ ]] || refuse "PROX_SLURM_BASE='$BASE' must be a short absolute path of plain characters"
    if [[ -d $BASE && ! -e $BASE/.prox-slurm && -n $(ls -A "$BASE") ]]; then
        refuse "$BASE holds files that are not this cluster's; set PROX_SLURM_BASE to another folder"
    fi
    local conf old
    for conf in slurm.conf gres.conf slurmdbd.conf; do
        [[ ! -e $ETC/$conf ]] || grep -qF "$MARK" "$ETC/$conf" ||
            refuse "$ETC/$conf is another Slurm's; use that one (cluster=slurm), or move the file away"
    done
    old=$(sed -n 's/^StateSaveLocation=\(.*\)\/ctld$/\1/p' "$ETC/slurm.conf" 2>/dev/null || true)
    if [[ -n $old && $old != "$BASE" ]] && BASE=$old pid_of slurmctld slurmctld >/dev/null; then
        refuse "a dev cluster runs from $old; stop it first (PROX_SLURM_BASE=$old $0 stop)"
    fi
}

check_ports() {
    local -A owner=([$CTLD_PORT]='slurmctld slurmctld' [$DBD_PORT]='slurmdbd slurmdbd' [$DB_PORT]='mariadbd mariadbd')
    local node port
    for node in $(node_names); do owner[$((NODE_PORT + ${node#n}))]="slurmd slurmd.$node"; done
    for port in "${!owner[@]}"; do
        # shellcheck disable=SC2086  # two words on purpose
        ! tcp_up "$port" || pid_of ${owner[$port]} >/dev/null ||
            refuse "port $port is in use by another program; stop it, or set PROX_SLURM_PORT (now $PORT) to another base"
    done
}

install_packages() {
    local package missing=() policy=/usr/sbin/policy-rc.d log=/var/log/prox-slurm-apt.log status=0
    for package in "${PACKAGES[@]}"; do installed "$package" || missing+=("$package"); done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || refuse "${missing[*]} missing and there is no apt-get; use a Debian 12 machine or image (debian:12)"
    say "installing ${missing[*]}"
    # The packages must not start daemons of their own.
    local made=
    [[ -e $policy ]] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made=1; }
    { apt-get update -qq || true
      apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null || status=$?
    [[ -z $made ]] || rm -f $policy
    ((status == 0)) || { tail -15 "$log" >&2; refuse "apt-get could not install ${missing[*]}; see $log (network? another apt running?)"; }
    say "installed"
}

# put FILE: standard input becomes FILE, in place (in a container /etc/hosts is a mount and cannot be renamed over).
put() { local text; text=$(cat); printf '%s\n' "$text" >"$1"; }

resolves_here() { [[ $(getent ahostsv4 "$1" | awk 'NR == 1 { print $1 }') == 127.0.0.1 ]]; }

# Node names are what torch.distributed gets as MASTER_ADDR; the host's name is what the daemons bind to.
write_hosts() {
    local name lines=
    for name in "$HOST" $(node_names); do resolves_here "$name" || lines+="127.0.0.1 $name $HOSTS_MARK"$'\n'; done
    [[ -z $lines ]] || { printf '%s' "$lines"; cat /etc/hosts; } | put /etc/hosts
    for name in "$HOST" $(node_names); do
        resolves_here "$name" || refuse "$name does not resolve to 127.0.0.1 though /etc/hosts says so; put 'files' first for hosts in /etc/nsswitch.conf"
    done
}

write_config() {
    local node gpu gres=
    mkdir -p "$BASE"/{ctld,pid,log,dev,spool} $ETC
    chmod 0755 "$BASE"
    touch "$BASE/.prox-slurm"
    for node in $(node_names); do mkdir -p "$BASE/spool/$node"; done
    # Fake GPUs are twins of /dev/null: gres.conf refuses anything but device files.
    for ((gpu = 0; gpu < GPUS; gpu++)); do
        [[ -c $BASE/dev/gpu$gpu ]] || mknod "$BASE/dev/gpu$gpu" c 1 3 ||
            refuse "cannot make the fake GPU device files; give the container CAP_MKNOD, or set PROX_SLURM_GPUS=0"
    done
    ((GPUS == 0)) || gres="Gres=gpu:$GPUS"
    [[ -s $BASE/db.pass ]] || (umask 077; head -c 18 /dev/urandom | base64 | tr -d '/+=' >"$BASE/db.pass")
    local set=() name
    # shellcheck disable=SC2034  # used by name below
    local DB_PASS GRES=$gres GPUMAX=$((GPUS - 1)) NODE_PORT_1=$((NODE_PORT + 1)) NODE_PORT_N=$((NODE_PORT + NODES))
    DB_PASS=$(cat "$BASE/db.pass")
    for name in MARK HOST BASE NODES CPUS MEM_MB GPUMAX GRES SLURMD_TIMEOUT CTLD_PORT DBD_PORT DB_PORT NODE_PORT_1 NODE_PORT_N; do
        set+=(-e "s#@$name@#${!name}#g")
    done
    if ((GPUS)); then set+=(-e 's/^@GPU@ //'); else set+=(-e '/^@GPU@ /d'); fi
    local conf
    for conf in slurm gres slurmdbd; do
        # slurmdbd refuses a file that others can read; the password is kept off the command line.
        (umask 077; sed "${set[@]}" "$HERE/conf/$conf.conf.in" | DB_PASS=$DB_PASS awk '{ gsub(/@DB_PASS@/, ENVIRON["DB_PASS"]); print }' >"$ETC/$conf.conf")
    done
    chmod 0644 $ETC/slurm.conf $ETC/gres.conf
}

start_munge() {
    [[ -s /etc/munge/munge.key ]] || {
        (umask 077; head -c 1024 /dev/urandom >/etc/munge/munge.key)
        chown munge:munge /etc/munge/munge.key
    }
    ! munge -n </dev/null >/dev/null 2>&1 || return 0
    install -d -o munge -g munge -m 0755 /run/munge
    runuser -u munge -- /usr/sbin/munged --force </dev/null >/dev/null
    wait_for 10 munge -n || fail "munged does not answer; see /var/log/munge/munged.log"
    say "munge up"
}

start_database() {
    if not_running mariadbd mariadbd; then
        if [[ ! -d $BASE/mysql/mysql ]]; then
            rm -rf "$BASE/mysql" "$BASE/.registered"
            install -d -o mysql -g mysql -m 0750 "$BASE/mysql"
            mariadb-install-db --no-defaults --user=mysql --datadir="$BASE/mysql" --skip-test-db \
                --auth-root-authentication-method=socket >"$BASE/log/mariadb-install.log" 2>&1 ||
                fail "MariaDB's data folder cannot be made; see $BASE/log/mariadb-install.log"
        fi
        install -d -o mysql -g mysql -m 0755 "$BASE/mysql-run"
        setsid /usr/sbin/mariadbd --no-defaults --user=mysql --datadir="$BASE/mysql" --socket="$BASE/mysql-run/s.sock" \
            --pid-file="$BASE/mysql-run/mariadbd.pid" --bind-address=127.0.0.1 --port="$DB_PORT" --skip-name-resolve \
            --performance-schema=off --innodb-buffer-pool-size=128M --innodb-flush-log-at-trx-commit=0 \
            --innodb-lock-wait-timeout=900 --max-allowed-packet=64M </dev/null >>"$BASE/log/mariadbd.log" 2>&1 &
        echo $! >"$BASE/pid/mariadbd.pid"
        disown
        wait_for 30 mariadb-admin --no-defaults -uroot --socket="$BASE/mysql-run/s.sock" ping || fail "MariaDB does not answer; see $BASE/log/mariadbd.log"
        mariadb --no-defaults -uroot --socket="$BASE/mysql-run/s.sock" <<EOF
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1';
ALTER USER 'slurm'@'127.0.0.1' IDENTIFIED BY '$(cat "$BASE/db.pass")';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
EOF
        say "MariaDB up"
    fi
    if not_running slurmdbd slurmdbd; then
        slurmdbd </dev/null
        wait_for 30 tcp_up "$DBD_PORT" || fail "slurmdbd does not answer; see $BASE/log/slurmdbd.log"
        say "slurmdbd up"
    fi
    if [[ ! -e $BASE/.registered ]]; then
        wait_for 20 sacctmgr -nP show cluster || fail "sacctmgr does not reach slurmdbd; see $BASE/log/slurmdbd.log"
        # sacctmgr says 1 when there is nothing new to add.
        sacctmgr -iQ add cluster proxdev >/dev/null 2>&1 || true
        sacctmgr -iQ add account $ACCOUNT cluster=proxdev >/dev/null 2>&1 || true
        sacctmgr -iQ add user root account=$ACCOUNT cluster=proxdev >/dev/null 2>&1 || true
        sacctmgr -iQ modify user root set defaultaccount=$ACCOUNT >/dev/null 2>&1 || true
        [[ -n $(sacctmgr -nP show assoc cluster=proxdev user=root format=account) ]] || fail "the account $ACCOUNT cannot be made; see $BASE/log/slurmdbd.log"
        touch "$BASE/.registered"
    fi
}

# How many nodes serve: answering (no '*'), and idle or at work.
nodes_up() { scontrol -o show nodes 2>/dev/null | grep -cE ' State=(IDLE|MIXED|ALLOCATED)(\+(COMPLETING|CLOUD|PLANNED))* ' || true; }
nodes_all() { scontrol -o show nodes 2>/dev/null | grep -c '^NodeName=' || true; }
all_up() { local all; all=$(nodes_all); ((all > 0)) && [[ $(nodes_up) == "$all" ]]; }
node_up() { scontrol -o show node "$1" 2>/dev/null | grep -qE ' State=(IDLE|MIXED|ALLOCATED)(\+(COMPLETING|CLOUD|PLANNED))* '; }

# What ran on a node whose slurmd is gone is lost; the controller would believe in it for minutes.
start_node() {
    not_running slurmd "slurmd.$1" || return 0
    kill_node "$1"
    mark_down "$1"
    slurmd -N "$1" </dev/null
}

start_slurm() {
    if not_running slurmctld slurmctld; then
        slurmctld </dev/null
        wait_for 20 scontrol ping || fail "slurmctld does not answer; see $BASE/log/slurmctld.log"
        say "slurmctld up"
    fi
    local node
    for node in $(node_names); do start_node "$node"; done
    # An unclean end leaves nodes DOWN or DRAINED; those that answer may serve again.
    if ! wait_for 10 all_up; then
        for node in $(node_names); do node_up "$node" || scontrol update nodename="$node" state=resume 2>/dev/null || true; done
        wait_for 20 all_up || { sinfo -N >&2; fail "not all nodes came up; see $BASE/log/slurmd.*.log (changed a setting? '$0 restart')"; }
    fi
}

start() {
    check_settings
    if pid_of slurmctld slurmctld >/dev/null && ! grep -qx "$(settings)" "$BASE/.settings" 2>/dev/null; then
        refuse "the cluster runs with other settings ($(cat "$BASE/.settings" 2>/dev/null)); use '$0 restart'"
    fi
    check_ports
    install_packages
    write_hosts
    write_config
    settings >"$BASE/.settings"
    start_munge
    start_database
    start_slurm
    say "ready: $(nodes_up) nodes, $CPUS CPUs, $GPUS fake GPUs and $MEM_MB MB each; partitions main, preempt"
}
settings() { echo "nodes=$NODES cpus=$CPUS gpus=$GPUS mem_mb=$MEM_MB slurmd_timeout=$SLURMD_TIMEOUT port=$PORT"; }

# ---------------------------------------------------------------- stop, nodes

# job_pids NODE: the step daemons of a node, the processes of its jobs, and all that descend from them.
job_pids() {
    local dir seeds=
    for dir in /proc/[0-9]*; do
        if [[ $(cat "$dir/comm") == slurmstepd ]]; then
            [[ -z $(find "$dir/fd" -lname "$BASE/log/slurmd.$1.log") ]] || seeds+=" ${dir#/proc/}"
        # What the process was started with; the cluster's name tells ours from another's.
        elif [[ $(tr '\0' '\n' <"$dir/environ" | grep -xcE "SLURMD_NODENAME=$1|SLURM_CLUSTER_NAME=proxdev") == 2 ]]; then
            seeds+=" ${dir#/proc/}"
        fi
    done 2>/dev/null
    [[ -n $seeds ]] || return 0
    # A job may have cleaned its children's environment: follow parents too ("pid state ppid" once the name is cut out).
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/(.*)//' | awk -v seeds="$seeds" '
        BEGIN { split(seeds, s); for (i in s) found[s[i]] }
        $2 != "Z" { parent[$1] = $3 }
        END {
            do { more = 0; for (p in parent) if (!(p in found) && parent[p] in found) { found[p]; more = 1 } } while (more)
            for (p in found) if (p in parent) print p
        }' || true
}

# Nothing warns a job: this is how a node's power goes. Its jobs are NODE_FAIL (and requeued) once it is marked DOWN.
kill_node() {
    local pids _
    if pids=$(pid_of slurmd "slurmd.$1"); then kill -KILL "$pids" 2>/dev/null || true; fi
    for _ in 1 2 3; do                       # again, for what was being started meanwhile
        pids=$(job_pids "$1")
        [[ -n $pids ]] || break
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null || true
        sleep 0.1
    done
    rm -f "$BASE/pid/slurmd.$1.pid"
}
mark_down() { scontrol update nodename="$1" state=down reason="devcluster.sh $verb"; }

stop() {
    local file node
    if [[ -e $BASE/.prox-slurm ]]; then
        for file in "$BASE"/spool/n*; do
            node=${file##*/}
            kill_node "$node"
            ! running || mark_down "$node" 2>/dev/null || true
        done
        stop_daemon slurmctld
        stop_daemon slurmdbd
        stop_daemon mariadbd
    fi
    say "stopped"
}

wipe() {
    local conf
    if [[ -e $BASE && ! -e $BASE/.prox-slurm ]]; then refuse "$BASE was not made by this script; check PROX_SLURM_BASE"; fi
    stop
    rm -rf "$BASE"
    for conf in slurm.conf gres.conf slurmdbd.conf; do
        ! grep -qsF "$MARK" "$ETC/$conf" || rm -f "$ETC/$conf"
    done
    ! grep -qF "$HOSTS_MARK" /etc/hosts || grep -vF "$HOSTS_MARK" /etc/hosts | put /etc/hosts
    say "wiped"
}

running() { pid_of slurmctld slurmctld >/dev/null && scontrol ping >/dev/null 2>&1; }
need_node() {
    running || refuse "the cluster is not running; '$0 start' first"
    if ! [[ ${1-} =~ ^n[0-9]$ ]] || ! scontrol show node "$1" >/dev/null 2>&1; then
        refuse "no node '${1-}'; it is one of: $(sinfo -hN -p main -o %N | xargs)"
    fi
}

revive_node() {
    start_node "$1"
    # Registering is enough after a noticed loss; a node marked DOWN by hand may need the word.
    wait_for 3 node_up "$1" || scontrol update nodename="$1" state=resume 2>/dev/null || true
    wait_for 20 node_up "$1" || fail "$1 does not come back; see $BASE/log/slurmd.$1.log"
    say "$1 is up"
}

status() {
    if ! running; then
        local file name left=
        for file in "$BASE"/pid/*.pid; do
            name=${file##*/}
            name=${name%.pid}
            not_running "${name%%.*}" "$name" || left+=" $name"
        done
        [[ -n $left ]] || { echo "stopped"; return 3; }
        echo "slurmctld does not answer; running:$left"
        return 1
    fi
    sinfo -N -p main -o '%4N %10T %5c %7m %G'
    squeue -o '%.12i %.10P %.20j %.10T %.10M %R'
    echo "$(nodes_up) of $(nodes_all) nodes up"
    all_up
}

# ---------------------------------------------------------------- verbs

verb=${1-}
case $verb in
    start | stop | restart | wipe | kill-node | revive-node)
        need_root
        # One at a time; -o: the daemons must not inherit the lock.
        if [[ ${PROX_SLURM_LOCKED-} != 1 ]]; then
            rc=0
            PROX_SLURM_LOCKED=1 flock -o -w 300 -E 75 /run/lock/prox-slurm.lock bash "$HERE/${0##*/}" "$@" || rc=$?
            ((rc != 75)) || refuse "another devcluster.sh has been at work for 5 minutes; see 'fuser -v /run/lock/prox-slurm.lock'"
            exit "$rc"
        fi
        unset PROX_SLURM_LOCKED
        ;;
esac
case $verb in
    start) start ;;
    stop) stop ;;
    restart) stop; start ;;
    status) status ;;
    wipe) wipe ;;
    kill-node)
        need_node "${2-}"
        kill_node "$2"
        if [[ ${3-} == --silent ]]; then
            say "$2 is dead; the controller will notice"
        else
            mark_down "$2"
            say "$2 is dead and DOWN"
        fi
        ;;
    revive-node) need_node "${2-}"; revive_node "$2" ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
esac
