#!/bin/sh
# Two steps of one actor by hand: an episode of CartPole begins, one action is played, the episode is truncated.
#
#   stoker serve --env CartPole-v1
#   sh two_steps.sh http://127.0.0.1:8000 [ACTOR] [TOKEN]
set -eu
url=${1:-http://127.0.0.1:8000}
actor=${2:-by-hand}
token=${3:-none}

ask() { # METHOD PATH [JSON]: print the answer; --retry waits as long as the server says
  curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --request "$1" "$url$2" \
    --header "Authorization: Bearer $token" --header "Content-Type: application/json" ${3:+--data "$3"}
}
field() { # NAME: the value of a field of the JSON on standard input
  sed -E "s/.*\"$1\":(\"[^\"]*\"|[^,}]*).*/\1/"
}

# The number of the next record of this actor, which is 1 at first.
known=$(ask GET "/v1/actors/$actor" 2>/dev/null || true)
case $known in *'"next":'*) seq=$(echo "$known" | field next) ;; *) seq=1 ;; esac

# The first observation of an episode. The answer has an action, and a memo that comes back with the outcome.
answer=$(ask POST /v1/step "{\"steps\":[{\"actor\":\"$actor\",\"seq\":$seq,\"start\":true,\"observation\":[0,0,0,0]}]}")
echo "$answer"

# What the action led to. Sent twice, as after a lost answer: the repeat changes nothing.
step="{\"actor\":\"$actor\",\"seq\":$((seq + 1)),\"action\":$(echo "$answer" | field action),"
step="$step\"memo\":$(echo "$answer" | field memo),\"reward\":1,\"observation\":[0,0.2,0,-0.3],\"truncated\":true}"
ask POST /v1/step "{\"steps\":[$step]}"
echo
ask POST /v1/step "{\"steps\":[$step],\"ack\":\"durable\"}"
echo
