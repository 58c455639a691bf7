#!/bin/bash
# The learner of a training on a Slurm cluster; its actors are those of actors.slurm.sh. In a directory that all nodes
# see:
#
#   umask 077
#   stoker token actors --actors actors- --token-file actors.token >> tokens.toml
#   sbatch learner.slurm.sh
#   sbatch actors.slurm.sh
#
#SBATCH --job-name=learner
#SBATCH --dependency=singleton
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=1-00:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=learner-%j.log
# Before the time limit the learner saves, and goes back into the queue; it continues its run.
#SBATCH --signal=B:USR1@90

: "${ENVIRONMENT:=CartPole-v1}"
: "${LEARNER_FLAGS:=}" # more of those of `stoker serve`

# Nodes are shared: each job takes a port of its own.
port=$((20000 + SLURM_JOB_ID % 20000))
echo "http://${LEARNER_HOST:-$(hostname -f)}:$port" > learner.url.new && mv learner.url.new learner.url

goes_on=0
trap 'goes_on=1; kill -TERM "$learner"' USR1
trap 'kill -TERM "$learner"' TERM

# shellcheck disable=SC2086 # the flags are words
stoker serve --env "$ENVIRONMENT" --host 0.0.0.0 --port "$port" --token-file tokens.toml --grace 60s $LEARNER_FLAGS &
learner=$!
while wait "$learner"; code=$?; kill -0 "$learner" 2> /dev/null; do :; done # a signal interrupts a wait

((goes_on == 0)) || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
