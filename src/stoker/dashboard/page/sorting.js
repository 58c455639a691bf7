/** Which runs the list shows, and in which order: pure functions on summaries. */

export const STATUSES = ["live", "stalled", "crashed", "broken", "stopped", "done", "ended"]

const KEYS = {
  name: (run) => `${run.name}/${run.version}/${run.run_id}`,
  status: (run) => STATUSES.indexOf(run.status),
  best: (run) => run.best_value,
  last: (run) => run.last_mean,
  steps: (run) => run.total_steps,
  speed: (run) => run.steps_per_s,
  updated: (run) => run.last_updated,
}

/** Directions that people want first: the best, the newest, but names from A. */
export const FIRST_ORDER = { name: "asc", status: "asc", best: "desc", last: "desc", steps: "desc", speed: "desc", updated: "desc" }

/** The runs that a filter leaves: words in names and settings, and `key=value` terms, all of which must hold. */
export function filtered(runs, text, status) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
    const cut = term.indexOf("=")
    return cut > 0 ? { key: term.slice(0, cut), value: term.slice(cut + 1) } : { word: term }
  })
  return runs.filter((run) => (!status || run.status === status) && terms.every((term) => holds(run, term)))
}

function holds(run, { word, key, value }) {
  if (word !== undefined) {
    return `${run.name}/${run.version}/${run.run_id} ${run.path} ${run.env ?? ""} ${run.agent ?? ""} ${run.status}`.toLowerCase().includes(word)
  }
  if (key in run && typeof run[key] !== "object") return String(run[key] ?? "").toLowerCase() === value
  return Object.entries(run.settings ?? {}).some(([name, one]) => {
    const lower = name.toLowerCase()
    return (lower === key || lower.endsWith(`.${key}`)) && String(one).toLowerCase() === value
  })
}

/** In order; runs without a value come last, whatever the order. */
export function sorted(runs, by, order) {
  const key = Object.hasOwn(KEYS, by) ? KEYS[by] : KEYS.updated
  const way = order === "asc" ? 1 : -1
  const collator = new Intl.Collator("en", { numeric: true })
  return runs.map((run) => [key(run), run]).sort(([a, one], [b, other]) => {
    const isFirst = a === null || a === undefined
    const isSecond = b === null || b === undefined
    if (isFirst || isSecond) return isFirst - isSecond
    const found = typeof a === "string" ? collator.compare(a, b) : a - b
    return found * way || (other.last_updated ?? 0) - (one.last_updated ?? 0) || (one.id < other.id ? -1 : 1)
  }).map(([, run]) => run)
}

/**
 * The rows of the list: groups with several runs get a heading, at the place of their first run in order.
 *
 * Returns `[{kind: "group", group, runs, isClosed} | {kind: "run", runs: [run], isInGroup}]`.
 */
export function entriesOf(runs, isGrouped, closed) {
  if (!isGrouped) return runs.map((run) => ({ kind: "run", runs: [run], isInGroup: false }))
  const groups = new Map()
  for (const run of runs) {
    const found = groups.get(run.group)
    if (found) found.push(run)
    else groups.set(run.group, [run])
  }
  const entries = []
  for (const [group, members] of groups) {
    if (members.length === 1) {
      entries.push({ kind: "run", runs: members, isInGroup: false })
      continue
    }
    const isClosed = closed.has(group)
    entries.push({ kind: "group", group, runs: members, isClosed })
    if (!isClosed) for (const run of members) entries.push({ kind: "run", runs: [run], isInGroup: true })
  }
  return entries
}
