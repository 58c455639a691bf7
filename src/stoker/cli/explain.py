"""``stoker explain``: which part limits a training, from the records of its run. Imports no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from stoker.cli.options import Flag
from stoker.cli.parsing import RunCommand
from stoker.cli.printing import ago, from_here, say_json
from stoker.cli.stored import config_of, open_run
from stoker.errors import RunDirectoryError
from stoker.runs import Columns
from stoker.runs.configs import flat_settings
from stoker.runs.status import status_of
from stoker.settings import NonNegative
from stoker.telemetry import Explanation, chrome_trace, explained, profile_of_records
from stoker.writer import files

_NONE = (
    "nothing says where its time went, because the run has no records of metrics; turn them on with "
    "--record-freq 1000 (record_freq or record_interval of a session)"
)


class Explain(RunCommand, frozen=True, kw_only=True):
    """Say which part limits a training, who waits for whom, and what would help.

    It reads the records in metrics.jsonl, of the last attempt: the training may run, have ended, or be dead.
    """

    seconds: Annotated[NonNegative | None, Flag(default="default: the whole attempt")] = None
    """Explain the last seconds that are recorded, at least one record."""

    trace: Annotated[str, Flag(metavar="FILE.json", default="default: none")] = ""
    """Write what each part did over time, for chrome://tracing or ui.perfetto.dev."""

    async def __call__(self) -> int:
        run = await open_run(self.run)
        records = _records_of(await run.read_metrics(), self.seconds)
        profile = profile_of_records(record for _, record in records)
        if profile is None:
            raise RunDirectoryError(run.directory, _NONE)
        settings = flat_settings(await config_of(run))
        found, last = explained(profile, offline=bool(settings.get("offline"))), records[-1][0]
        if self.trace:
            periods = ((ended, profile_of_records([record])) for ended, record in records)
            windows = [(ended.timestamp() - one.seconds, one) for ended, one in periods if one is not None]
            trace = msgspec.json.encode(chrome_trace(windows, run.metadata.name))
            files.put_in_place(Path(self.trace), lambda file: file.write(trace))
        if self.json:
            say_json({"run": str(run.directory), "until": last.isoformat(), **_fields_of(found)})
            return 0
        print(f"{from_here(run.directory)}, recorded until {ago(last, datetime.now(UTC))}")
        print(f"{status_of(run)}\n")
        print("\n".join(found.lines()))
        if self.trace:
            print(f"\n{self.trace}")
        return 0


def _records_of(columns: Columns, seconds: float | None) -> list[tuple[datetime, dict[str, Any]]]:
    """The records with clocks of the last attempt, each with the time of its end, as far back as wanted."""
    if "metrics.load/period_s" not in columns:
        return []
    has_clocks = ~np.isnan(columns["metrics.load/period_s"])
    rows = np.flatnonzero(has_clocks & (columns["attempt"] == columns["attempt"].max()))
    names = [name for name in columns if name.startswith(("metrics.time/", "metrics.load/"))]
    found: list[tuple[datetime, dict[str, Any]]] = []
    for row in rows.tolist():
        values = {name.removeprefix("metrics."): columns[name][row] for name in names}
        record = {name: float(value) for name, value in values.items() if isinstance(value, float)}
        known = {name: value for name, value in record.items() if value == value}  # not NaN
        found.append((columns["time"][row], known))
    if seconds is None or not found:
        return found
    return [one for one in found if (found[-1][0] - one[0]).total_seconds() < seconds] or found[-1:]


def _fields_of(found: Explanation) -> dict[str, Any]:
    return {
        "bottleneck": found.bottleneck.culprit,
        "findings": [msgspec.structs.asdict(finding) for finding in found.findings],
        "profile": msgspec.structs.asdict(found.profile),
    }
