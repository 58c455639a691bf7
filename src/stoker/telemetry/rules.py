"""The rules that name what limits a training, each from the shares that it shows in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stoker.telemetry.findings import Finding, Measured, percent

Rule = Callable[[Measured], "Finding | None"]


def _lock(found: Measured) -> Finding | None:
    held, other = found.profile.lock_held or 0.0, found.profile.other_cpus or 0.0
    if held < 0.2 or other < 0.4:
        return None
    name = f", {found.profile.busiest_thread!r} above all" if found.profile.busiest_thread else ""
    return Finding(
        culprit="interpreter lock",
        text=f"A thread that is not stoker's holds the interpreter lock{name}: such threads use or want "
        f"{other:.1f} processors, and {percent(held)} of all looks had to wait for the lock. Learner and "
        "event loop wait for it, too, so their shares overstate their own work.",
        remedy="run that thread's work in a separate process, or make it release the lock (numpy, torch)",
    )


def _passes(found: Measured) -> Finding | None:
    per_pass = found.profile.actions_per_pass
    if found.passes < 0.4 or per_pass is None:
        return None
    speedup, why = found.bound(found.passes, "passes", "loop")
    if per_pass < 1.5 and found.n_actors > 1:
        return Finding(
            culprit="forward passes",
            text=f"Forward passes take {percent(found.passes)} of the time, and each of them chooses "
            f"{per_pass:.1f} actions although there are {found.n_actors} actors: they do not ask together. "
            f"Passes shared by two give at most {speedup:.1f}x{why}.",
            speedup=speedup,
            remedy="let the actors wait for their actions at the same time: one task each, or `act_many` "
            "for all",
        )
    if found.passes < 0.7:
        return None
    return Finding(
        culprit="forward passes",
        text=f"Forward passes take {percent(found.passes)} of the time, {per_pass:.1f} actions each. "
        f"Passes twice as fast give at most {speedup:.1f}x{why}.",
        speedup=speedup,
        remedy="--num-envs with more environments per pass, --actors processes with a policy copy each, "
        "smaller --hidden-sizes",
    )


def _evaluation(found: Measured) -> Finding | None:
    playing = found.share("evaluator", "playing")
    if playing < 0.6 or max(found.loop, found.handover) < 0.7:
        return None
    return Finding(
        culprit="evaluation",
        text=f"Evaluations play {percent(playing)} of the time on the event loop, which is busy "
        f"{percent(found.loop)}: they take it from the actors.",
        remedy="a larger --eval-freq, or fewer --eval-episodes",
    )


def _blocked(found: Measured) -> Finding | None:
    # A forward pass and an environment that wait on the event loop are named by other rules.
    blocked = found.share("loop", "blocked") - found.share("inference", "computing")
    if blocked < 0.4 or found.steps_inline or (found.learner > 0.8 and blocked < 0.5):
        return None
    where = f", most often in {found.profile.blocked_in}" if found.profile.blocked_in else ""
    speedup, why = found.bound(found.loop, "loop")
    return Finding(
        culprit="event loop",
        text=f"The event loop is blocked {percent(blocked)} of the time{where}: in a call that waits "
        "there, while actors, forward passes and the learner's results wait for it. Half of it gives at "
        f"most {speedup:.1f}x{why}.",
        speedup=speedup,
        remedy="await what blocks, or move it to a thread; for environments --stepping thread",
    )


def _disk(found: Measured) -> Finding | None:
    held = found.share("learner", "delivering", "saving")
    is_waited_for = found.disk >= 0.6 and found.learner < 0.6 and found.loop < 0.6
    if held < 0.25 and not (is_waited_for and not found.has_actors):
        return None
    saving = found.share("learner", "saving")
    checkpoints = percent(found.share("checkpoints", "writing"))
    busy = f"checkpoints are written {checkpoints} of the time, rows and journal {percent(found.disk)}"
    speedup, why = found.bound(held or found.disk)
    waits = (
        f"The learner waits for the disk {percent(held)} of the time" if held else "Callers wait for the disk"
    )
    return Finding(
        culprit="disk",
        text=f"{waits}: {busy}. A disk twice as fast gives at most {speedup:.1f}x{why}.",
        speedup=speedup,
        remedy="a larger --checkpoint-freq"
        if saving > held / 2
        else "fewer calls of `flush`, a larger flush_interval_s, --no-journal",
    )


def _learner(found: Measured) -> Finding | None:
    if found.learner < 0.75 and not (found.learner >= 0.5 and found.learner + found.handover >= 0.85):
        return None
    speedup, why = found.bound(found.learner, "learner", rest=found.handover)
    learning, observing = found.share("learner", "learning"), found.share("learner", "observing")
    does = f"learning {percent(learning)}, observing {percent(observing)}"
    if found.handover >= 0.1:
        does += f"; {percent(found.handover)} more on its way to and from the event loop"
    fewer = "a larger --opt-interval (fewer updates per step), a smaller --batch-size or --hidden-sizes"
    smaller = "observations that are smaller, or arrays (`observe_batch`, --vectorize)"
    useless = "; more environments give nothing"
    if found.offline:
        fewer, smaller, useless = "a smaller --batch-size or --hidden-sizes, --device cuda", "", ""
    return Finding(
        culprit="learner",
        text=f"The learner is the bottleneck: it is busy {percent(found.learner)} of the time ({does}). A "
        f"learner twice as fast gives at most {speedup:.1f}x{why}{useless}.",
        speedup=speedup,
        remedy=fewer if learning >= observing else smaller,
    )


def _queue(found: Measured) -> Finding | None:
    waiting, fill = found.share("actors", "observing"), found.profile.queue_fill or 0.0
    capacity, handover = found.profile.queue_capacity or 0.0, found.share("learner", "handover")
    is_full = waiting >= 0.3 if found.has_actors else fill >= 0.5
    if not is_full or capacity >= 2 * max(1, found.n_actors) or found.learner > 0.75:
        return None
    return Finding(
        culprit="queue",
        text=f"The event queue is too small: it holds {capacity:.0f} events for {found.n_actors} actors, "
        f"which wait in observe {percent(waiting)} of the time although the learner is busy only "
        f"{percent(found.learner)} (and {percent(handover)} on its way to and from the event loop, once "
        "per queue that it empties).",
        remedy=f"--queue-capacity {max(16, 2 * found.n_actors)}",
    )


def _environments(found: Measured) -> Finding | None:
    if not found.has_actors:
        return None
    if found.steps_inline and found.loop >= 0.6:
        speedup, why = found.bound(found.loop, "loop")
        share = found.n_actors * found.stepping
        return Finding(
            culprit="environments",
            text=f"The environments are the bottleneck: the event loop steps them, {percent(share)} of the "
            f"time, one after the other. Environments twice as fast give at most {speedup:.1f}x{why}; more "
            "of them in the same place give nothing.",
            speedup=speedup,
            remedy="--actors processes; --stepping thread if a step waits or releases the interpreter lock",
        )
    if found.stepping < 0.5:
        return None
    speedup, why = _with_twice_the_actors(found)
    each_ms = 1e3 * found.n_actors * found.stepping / max(found.profile.steps_per_s, 1e-9)
    if found.n_actors <= 2:
        return Finding(
            culprit="actors",
            text=f"There are too few actors: {found.n_actors} that spend {percent(found.stepping)} of "
            f"their time in the environment ({each_ms:.1f} ms per step), while the learner is busy "
            f"{percent(found.learner)}. Twice as many give at most {speedup:.1f}x{why}.",
            speedup=speedup,
            remedy=f"--num-envs {max(8, 2 * found.n_actors)}",
        )
    return Finding(
        culprit="environments",
        text=f"The environments are the bottleneck: the {found.n_actors} actors spend "
        f"{percent(found.stepping)} of their time in them ({each_ms:.1f} ms per step), and the learner is "
        f"busy {percent(found.learner)}. Twice as many environments, or twice as fast ones, give at most "
        f"{speedup:.1f}x{why}.",
        speedup=speedup,
        remedy=f"--num-envs {2 * found.n_actors}, and --actors processes if a step computes rather than "
        "waits",
    )


def _with_twice_the_actors(found: Measured) -> tuple[float, str]:
    """N / (D + Z) doubles with N, up to where the busiest part has no time left."""
    other, name = found.next_busy()
    if other > 0.5:
        return max(1.0, 1 / other), f", for {name} is busy {percent(other)}"
    return 2.0, ""


def _loop(found: Measured) -> Finding | None:
    if found.loop < 0.75:
        return None
    speedup, why = found.bound(found.loop, "loop")
    actors, remedy = "actors, ", "--actors processes, or --vectorize, which steps all environments at once"
    if found.offline:
        actors, remedy = "", "a larger --eval-freq"
    return Finding(
        culprit="event loop",
        text=f"The event loop is the bottleneck: it is busy {percent(found.loop)} of the time with {actors}"
        f"forward passes ({percent(found.share('inference', 'computing'))}) and whatever else runs there. "
        f"Half of that gives at most {speedup:.1f}x{why}.",
        speedup=speedup,
        remedy=remedy,
    )


def _few_actors(found: Measured) -> Finding | None:
    if not 1 <= found.n_actors <= 2 or max(found.learner, found.loop, found.disk) >= 0.7:
        return None
    speedup, why = _with_twice_the_actors(found)
    return Finding(
        culprit="actors",
        text=f"There are too few actors: with {found.n_actors}, each part waits for the others in turn; "
        f"the learner is busy {percent(found.learner)}, the event loop {percent(found.loop)}. Twice as "
        f"many give at most {speedup:.1f}x{why}.",
        speedup=speedup,
        remedy="--num-envs 8",
    )


_RULES: tuple[Rule, ...] = (
    _lock, _passes, _evaluation, _blocked, _disk, _learner, _queue, _environments, _loop, _few_actors,
)  # fmt: skip
"""The first that finds something has found the bottleneck: what spoils others' measures comes before them."""
_OFFLINE_RULES: tuple[Rule, ...] = (_lock, _evaluation, _blocked, _disk, _learner, _loop)
"""Those of a training on a data set, where nobody plays but evaluations."""


def bottleneck_of(found: Measured) -> Finding:
    """What limits the training."""
    rules = _OFFLINE_RULES if found.offline else _RULES
    limits = (finding for rule in rules if (finding := rule(found)) is not None)
    return next(limits, None) or _unsaturated(found)


def _unsaturated(found: Measured) -> Finding:
    if not found.profile.steps_per_s and not found.profile.opt_steps_per_s:
        return Finding(culprit="none", text="Nothing was consumed in this time: no part limits the training.")
    other, name = found.next_busy()
    return Finding(
        culprit="none",
        text=f"No part is saturated; {name} is busiest, {percent(other)} of the time. The throughput is at "
        f"most {1 / max(other, 0.01):.1f}x of what it is, whatever is added to the other parts.",
        remedy=""
        if found.offline
        else "--num-envs with more environments, so that the parts wait less for each other",
    )


def findings_beside(found: Measured) -> Iterator[Finding]:
    """What slows every part down, and what does not limit the training and yet does not keep up."""
    if (starved := found.share("loop", "starved")) >= 0.25:
        yield Finding(
            culprit="processors",
            text="There are too few processors: the event loop was ready to run and got none "
            f"{percent(starved)} of the time, and the training used {found.profile.cpus or 0.0:.1f} of "
            "them. The other parts are slower for that, too.",
            remedy="fewer other programs, or fewer --torch-threads and processes",
        )
    for part in found.profile.shares:
        writing = found.share(part, "writing")
        if part.startswith("recorder.") and writing >= 0.75:
            name = part.removeprefix("recorder.")
            yield Finding(
                culprit="recorder",
                text=f"The recorder {name!r} is busy {percent(writing)} of the time and may not keep up: "
                "its oldest records are dropped when too many wait, and the end of the training waits for "
                "the last ones.",
                remedy="a larger --record-freq, or a faster destination",
            )
