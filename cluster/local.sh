#!/bin/sh
# A Ray head on this machine alone: dashboard, jobs and token, all on 127.0.0.1.
#   cluster/local.sh           start it, and say how to send it a job
#   cluster/local.sh stop      stop it and all that runs in it, and no other Ray on this machine
# Settings, from the environment: PORT (6380; it takes the next two as well), DASHBOARD_PORT (8265), RAY_TMPDIR
# (/tmp/enpar-ray-USER), and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH for a token of your own; else the one in
# ~/.ray/auth_token is taken, or made.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
[ ! -x "$here/.venv/bin/ray" ] || PATH="$here/.venv/bin:$PATH"
command -v ray >/dev/null || { echo "cluster/local.sh: no ray here; run make setup first" >&2; exit 1; }

port=${PORT:-6380}
dashboard=${DASHBOARD_PORT:-8265}
export RAY_TMPDIR="${RAY_TMPDIR:-/tmp/enpar-ray-$(id -un)}"
pid_file=$RAY_TMPDIR/head.pid
log=$RAY_TMPDIR/head.log

running() { [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

stop() {
  running || { echo "cluster/local.sh: nothing of ours runs here" >&2; exit 1; }
  kill "$(cat "$pid_file")"
  while running; do sleep 0.2; done
  rm -f "$pid_file"
}

start() {
  if running; then
    echo "cluster/local.sh: it runs already; stop it with: cluster/local.sh stop" >&2
    exit 1
  fi
  umask 077 # the token and the logs are nobody else's
  mkdir -p "$RAY_TMPDIR"
  export RAY_AUTH_MODE=token
  export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # Ray's word for one machine alone: every port on 127.0.0.1
  export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # there is no other node to hand work to
  [ -n "${RAY_AUTH_TOKEN:-}${RAY_AUTH_TOKEN_PATH:-}" ] || {
    ray get-auth-token --generate >/dev/null 2>&1
    chmod 600 "$HOME/.ray/auth_token"
  }
  : >"$log" # an earlier run's last words are no sign of life
  # --block keeps one process that takes all of its own down with it; `ray stop` would stop every Ray on the machine.
  nohup ray start --head --block --disable-usage-stats --node-ip-address=127.0.0.1 --port="$port" \
    --ray-client-server-port=$((port + 1)) --dashboard-agent-listen-port=$((port + 2)) \
    --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" >"$log" 2>&1 &
  echo $! >"$pid_file"
  until grep -q "Ray runtime started" "$log"; do
    running || { cat "$log" >&2; echo "cluster/local.sh: Ray did not start" >&2; exit 1; }
    sleep 0.2
  done
  cat <<END
A Ray head runs here; its dashboard is at http://127.0.0.1:$dashboard. To send it a job:
  export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard
  ray job submit --working-dir . -- enpar fetch name=sample-corpus output=\$PWD/runs/corpus
To have a command here use it: RAY_AUTH_MODE=token RAY_ADDRESS=127.0.0.1:$port enpar pretrain …
To stop it: cluster/local.sh stop
END
}

case ${1:-start} in
  start | stop) "${1:-start}" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
