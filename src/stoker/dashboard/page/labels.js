/** Short names that tell chosen runs apart: what all of them share is left out. */

/** A map from id to name, for summaries of runs. */
export function labelsOf(runs) {
  const parts = runs.map((run) => [run.name, run.version, isAbsent(run.seed) ? null : `seed ${run.seed}`])
  const kept = [0, 1, 2].filter((k) => new Set(parts.map((part) => part[k])).size > 1)
  const short = parts.map((part) => named(kept.map((k) => part[k])))
  const times = new Map()
  for (const text of short) times.set(text, (times.get(text) ?? 0) + 1)
  return new Map(runs.map((run, n) => [run.id, times.get(short[n]) > 1 || !short[n] ? long(run, short[n]) : short[n]]))
}

/** The whole name of a run. */
export function fullName(run) {
  return [run.name, run.version, run.run_id].filter((part) => !isAbsent(part)).join("/") || run.path
}

function long(run, short) {
  const own = run.run_id ?? run.path
  return short ? `${short} · ${own}` : own
}

function named(parts) {
  return parts.filter((part) => !isAbsent(part)).join(" · ")
}

function isAbsent(value) {
  return value === null || value === undefined || value === ""
}
