# Runs a private server until its standard input ends: so it ends with whoever started it, however that
# one ends. Says "ready" when it answers; "stop", "crash" and "start" on its input are obeyed and
# answered with "done". Anything else it prints is a complaint.
set -eu
umask 077
exec 2>&1
directory=$(mktemp -d "$PLACE/longhaul-postgres.XXXXXX")
control() { "$BIN/pg_ctl" -D "$directory/data" -w -t 60 "$@" >"$directory/control" </dev/null; }
trap 'control -m immediate stop || true; rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
start() { control -l "$directory/log" start || { cat "$directory/control" "$directory/log"; exit 1; }; }

printf '%s\n' "$PASSWORD" >"$directory/password"
"$BIN/initdb" -D "$directory/data" -U longhaul -A scram-sha-256 --pwfile="$directory/password" \
    -E UTF8 --locale=C --no-sync >"$directory/log" 2>&1 || { cat "$directory/log"; exit 1; }
printf '%s\n' "unix_socket_directories = '$directory'" "$SETTINGS" >>"$directory/data/postgresql.conf"
printf '%s' "$CERTIFICATE" >"$directory/data/server.crt"
printf '%s' "$KEY" >"$directory/data/server.key"
start
echo ready
while read -r word; do
    case $word in
    stop) control -m fast stop ;;
    crash) control -m immediate stop ;;
    start) start ;;
    esac
    echo "done"
done
