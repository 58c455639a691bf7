"""Which part limits a training, who waits for whom, and what would help: a pure function of a profile."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from stoker.telemetry.findings import Finding, Measured, percent
from stoker.telemetry.profiles import Profile
from stoker.telemetry.rules import bottleneck_of, findings_beside


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a training went.

    Attributes:
        profile: what was measured.
        findings: what limits the training comes first; further ones do not limit it, or not yet.
        offline: whether it trains on a data set: then its steps are optimization steps.
    """

    profile: Profile
    findings: tuple[Finding, ...]
    offline: bool = False

    @property
    def bottleneck(self) -> Finding:
        """What limits the training."""
        return self.findings[0]

    def lines(self) -> list[str]:
        """The shares as a table, then the findings in sentences."""
        profile = self.profile
        steps = "" if self.offline else f"{profile.steps_per_s:,.0f} steps/s, "
        lines = [
            f"{steps}{profile.opt_steps_per_s:,.0f} optimization steps/s, over {profile.seconds:,.1f} s",
        ]
        lines.append(", ".join(_loads(profile)))
        lines.append("")
        width = max(map(len, profile.shares), default=0)
        for part, shares in profile.shares.items():
            shown = [(share, state) for state, share in shares.items() if share >= 0.0005]
            text = "   ".join(f"{state} {percent(share)}" for share, state in sorted(shown, reverse=True))
            lines.append(f"{part:<{width}}  {text}")
        for finding in self.findings:
            lines += ["", finding.text]
            if finding.remedy:
                lines.append(f"Try: {finding.remedy}.")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


def explained(profile: Profile, *, offline: bool = False) -> Explanation:
    """Say what limits the training of this profile.

    Args:
        profile: of the training.
        offline: whether it trains on a data set.
    """
    found = Measured(profile, offline=offline)
    findings = bottleneck_of(found), *findings_beside(found)
    return Explanation(profile=profile, findings=findings, offline=offline)


def _loads(profile: Profile) -> Iterator[str]:
    if profile.actors is not None:
        yield f"{profile.actors:.0f} actors in an episode"
    if profile.actions_per_pass is not None:
        yield f"{profile.actions_per_pass:.1f} actions per forward pass"
    if profile.queue_fill is not None and profile.queue_capacity is not None:
        yield f"queue of {profile.queue_capacity:.0f} is {percent(profile.queue_fill)} full"
    if profile.cpus is not None:
        others = profile.other_cpus
        foreign = "" if others is None else f" ({others:.1f} wanted by threads not stoker's)"
        yield f"{profile.cpus:.1f} processors in use{foreign}"
    if profile.lock_held is not None:
        yield f"interpreter lock held {percent(profile.lock_held)}"
