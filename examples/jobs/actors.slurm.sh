#!/bin/bash
# The actors of a training on a Slurm cluster: an array of tasks, each with a few environments, that play for the
# learner of learner.slurm.sh. Each task has a name of its own, and continues its streams when it starts again.
#
#SBATCH --job-name=actors
#SBATCH --array=0-63
#SBATCH --cpus-per-task=1
#SBATCH --mem=1G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=actors-%A_%a.log
# Before the time limit a task brings everything to the learner's disk, and goes back into the queue. So does the end
# by SIGTERM, which scancel and a preemption send; but then Slurm knows whether the task is to start again.
#SBATCH --signal=B:USR1@60

: "${ENVIRONMENT:=CartPole-v1}"
: "${NUM_ACTORS:=8}" # environments of each task

goes_on=0 is_ending=0 actor=
trap 'goes_on=1 is_ending=1; test -z "$actor" || kill -TERM "$actor"' USR1
trap 'is_ending=1; test -z "$actor" || kill -TERM "$actor"' TERM

# The learner may begin after its actors, or again on another node: each attempt reads its address anew.
for ((attempt = 1; attempt <= 40 && !is_ending; attempt++)); do
  if ((attempt > 1)) || ! test -e learner.url; then
    sleep 15 & wait $!
  fi
  test -e learner.url || continue
  srun --ntasks=1 stoker actor --connect "$(cat learner.url)" --env "$ENVIRONMENT" --num-actors "$NUM_ACTORS" \
    --name "actors-$SLURM_ARRAY_TASK_ID" --take-over --token-file actors.token --patience 120 --stopped-code 75 &
  actor=$!
  while wait "$actor"; code=$?; kill -0 "$actor" 2> /dev/null; do :; done # a signal interrupts a wait
  actor=
  case $code in
    0 | 2) exit "$code" ;; # the training has ended; a flag is wrong, and would be again
  esac
done

((goes_on == 0)) || scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
exit "${code:-1}"
