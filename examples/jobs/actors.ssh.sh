#!/bin/bash
# Actors on other machines, by ssh alone: plays on each HOST until the training has ended, or until Ctrl-C or SIGTERM.
# The learner on this machine needs no open port:
#
#   stoker serve --env CartPole-v1 &
#   ./actors.ssh.sh HOST ...
#
# The connection to a host takes the learner's port there. When it breaks, the actors there end, and play on through
# the next one. Where other people have accounts on a host, they reach that port, too: start the server with
# --token-file, and set STOKER_TOKEN here. The token goes through the connection, into no file and no command line.

: "${ENVIRONMENT:=CartPole-v1}"
: "${NUM_ACTORS:=8}"              # environments on each host
: "${LEARNER_PORT:=8000}"         # on this machine
: "${REMOTE_PORT:=$LEARNER_PORT}" # on the hosts
: "${STOKER:=stoker}"             # the command on the hosts

play_on() { # HOST
  local host=$1 connection code is_ending=0
  # The connection's input comes from here: it ends when this script closes it, or is gone, however that came.
  mkfifo "$directory/$host" && exec 3<> "$directory/$host"
  trap 'is_ending=1; exec 3>&-' TERM
  until ((is_ending)); do
    echo "${STOKER_TOKEN:-}" >&3
    ssh -T -o BatchMode=yes -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 \
      -R "127.0.0.1:$REMOTE_PORT:127.0.0.1:$LEARNER_PORT" "$host" "
        read -r STOKER_TOKEN && export STOKER_TOKEN && test -n \"\$STOKER_TOKEN\" || unset STOKER_TOKEN
        exec 3<&0
        $STOKER actor --connect http://127.0.0.1:$REMOTE_PORT --env $ENVIRONMENT --num-actors $NUM_ACTORS \
          --name $host --take-over --patience 60 --stopped-code 75 < /dev/null 3<&- & actor=\$!
        { cat <&3; kill \$actor; } > /dev/null 2>&1 & watch=\$!
        wait \$actor; code=\$?
        kill \$watch 2> /dev/null; exit \$code" < "$directory/$host" 3>&- &
    connection=$!
    while wait "$connection"; code=$?; kill -0 "$connection" 2> /dev/null; do :; done # a signal interrupts a wait
    case $code in
      0 | 2) return "$code" ;; # the training has ended; a flag is wrong, and would be again
    esac
    ((is_ending)) || { sleep 5 3>&- & wait $!; }
  done
}

test $# -gt 0 || { echo "usage: $0 HOST ..." >&2; exit 2; }
directory=$(mktemp -d) && trap 'rm -r "$directory"' EXIT
players=()
for host in "$@"; do
  play_on "$host" & players+=($!)
done
trap 'kill "${players[@]}" 2> /dev/null' INT TERM
worst=0
for player in "${players[@]}"; do
  while wait "$player"; code=$?; kill -0 "$player" 2> /dev/null; do :; done
  ((code <= worst)) || worst=$code
done
exit "$worst"
