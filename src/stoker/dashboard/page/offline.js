/**
 * The answers of the API out of a report: a file that holds runs and this page, and needs no server.
 *
 * A report holds each table of a run as at most a few thousand rows: several rows of the table are one, with their
 * lowest and highest value, their mean and their number. So ranges, smoothing, other axes and comparisons work as with
 * a server; they are exact where a table was short enough to be held whole.
 */

import { compared, smoothed } from "./statistics.js"

/** What `STOKER_REPORT` is: `answer(path, params)`, as `api.js` asks for it, and `note`, what the report leaves out. */
export function openReport(data) {
  return { made_at: data.made_at, note: data.note, answer: (path, params = {}) => answerOf(data, path, params) }
}

function answerOf(data, path, params) {
  const [, kind, id, part] = path.split("/")
  if (kind === "runs" && id === undefined) return data.list
  if (kind === "sparks") return { sparks: picked(data.sparks, listOf(params.ids)) }
  if (kind === "compare") return comparison(data, params)
  if (kind === "diff") return difference(data.diff, listOf(params.ids))
  if (kind !== "runs") throw refusal(404, `A report has no ${path}`)
  if (!Object.hasOwn(data.runs, id)) throw refusal(404, "This report does not hold that run; `stoker dash` shows all.")
  const run = data.runs[id]
  switch (part) {
    case undefined: return run.run
    case "series": return seriesOf(run, params)
    case "episodes": return episodesOf(run.episodes[params.kind === "eval" ? "eval" : "train"], params)
    case "events": return eventsOf(run.events, params)
    case "evaluations": return { evaluations: run.evaluations }
    case "shares": return { parts: run.shares[params.x || "steps"] }
    default: throw refusal(404, "This report does not hold that; `stoker dash` shows it.")
  }
}

function refusal(status, detail) {
  return Object.assign(new Error(detail), { status, title: "not in this report", detail })
}

function listOf(value) {
  return Array.isArray(value) ? value : (value ?? "").split(",").filter(Boolean)
}

function numberOf(value) {
  return value === null || value === undefined || value === "" ? null : Number(value)
}

function picked(table, keys) {
  return Object.fromEntries(keys.filter((key) => Object.hasOwn(table, key)).map((key) => [key, table[key]]))
}

/** A curve of a run with its table; null if the run has none of that name. */
function curveOf(run, name) {
  if (!Object.hasOwn(run.curves, name)) return null
  const curve = run.curves[name]
  return { ...run.tables[curve.table], min: curve.mean, max: curve.mean, ...curve }
}

const gaps = (values) => values.map((value) => (value === null ? NaN : value))
const nulls = (values) => values.map((value) => (Number.isFinite(value) ? value : null))

function seriesOf(run, params) {
  const axis = params.x || "steps"
  const [from, to] = [numberOf(params.from) ?? -Infinity, numberOf(params.to) ?? Infinity]
  const series = listOf(params.name).map((name) => {
    const curve = curveOf(run, name)
    if (curve === null) throw refusal(404, `The report has no series ${name} of this run.`)
    const { counts, mean, min, max, x: { [axis]: x } } = curve
    const smooth = params.smooth ? nulls(smoothed(gaps(mean), counts, params.smooth)) : null
    const rows = [...x.keys()].filter((i) => x[i] >= from && x[i] <= to)
    const n = rows.reduce((sum, i) => sum + counts[i], 0)
    const parts = inParts(rows, x, Number(params.points ?? 1200))
    const last = (values) => parts.map((part) => values[part[part.length - 1]])
    return {
      name, n, is_whole: parts.length === n, x: last(x), smooth: smooth && last(smooth),
      min: parts.map((part) => extreme(part, min, Math.min)), max: parts.map((part) => extreme(part, max, Math.max)),
      mean: parts.map((part) => weighted(part, mean, counts)),
    }
  })
  return { x: axis, cursor: "report", is_appended: false, share_read: 1, series }
}

/** Rows in equal parts of x, if there are more of them than points. */
function inParts(rows, x, points) {
  if (rows.length <= points) return rows.map((row) => [row])
  const [first, last] = [x[rows[0]], x[rows[rows.length - 1]]]
  const parts = new Map()
  for (const row of rows) {
    const place = Math.min(points - 1, Math.floor(((x[row] - first) / (last - first || 1)) * points))
    if (!parts.has(place)) parts.set(place, [])
    parts.get(place).push(row)
  }
  return [...parts.values()]
}

function extreme(part, values, of) {
  const known = part.map((i) => values[i]).filter((value) => value !== null)
  return known.length ? of(...known) : null
}

function weighted(part, values, counts) {
  let [sum, n] = [0, 0]
  for (const i of part) {
    if (values[i] === null) continue
    sum += values[i] * counts[i]
    n += counts[i]
  }
  return n ? sum / n : null
}

const SORTS = ["episode", "total_reward", "length", "total_steps", "time"]

function episodesOf(held, params) {
  const within = (value, from, to) => (from === null || value >= from) && (to === null || value <= to)
  const [low, high] = [numberOf(params.reward_from), numberOf(params.reward_to)]
  const [from, to] = [numberOf(params.from), numberOf(params.to)]
  const found = held.rows.filter((row) =>
    (!params.status || row.status === params.status) && (!params.actor || String(row.actor_id) === String(params.actor)) &&
    within(row.total_reward, low, high) && within(row.total_steps, from, to))
  const field = SORTS.includes(params.sort) ? params.sort : "episode"
  const way = params.order === "asc" ? 1 : -1
  found.sort((a, b) => way * ((a[field] ?? a.total_steps) - (b[field] ?? b.total_steps)))
  const size = Number(params.size ?? 50)
  const first = Number(params.page ?? 0) * size
  return { n: found.length, rows: found.slice(first, first + size) }
}

/** Events are held with the newest first. */
function eventsOf(held, params) {
  const isWanted = ({ kind, level }) => (!params.kind || kind === params.kind) && (!params.level || level !== "info")
  const found = held.rows.filter(isWanted)
  if (params.order === "asc") found.reverse()
  const size = Number(params.size ?? 100)
  const first = Number(params.page ?? 0) * size
  return { n: found.length, rows: found.slice(first, first + size) }
}

function difference(diff, ids) {
  const places = ids.map((id) => diff.ids.indexOf(id)).filter((place) => place >= 0)
  const keys = diff.keys.map(({ key, values }) => {
    const own = places.map((place) => values[place])
    return { key, values: own, differs: new Set(own.map((value) => JSON.stringify(value))).size > 1 }
  })
  const own = keys.filter(({ values }) => values.some((value) => value !== null)) // the others are of other runs
  return { ids: places.map((place) => diff.ids[place]), keys: own.sort((a, b) => Number(b.differs) - Number(a.differs)) }
}

function comparison(data, params) {
  const leftOut = []
  const groups = groupsOf(data, params, leftOut)
  const options = {
    statistic: params.statistic || "mean", points: Number(params.points ?? 400), from: numberOf(params.from), to: numberOf(params.to),
    factors: data.factors,
  }
  const answers = []
  for (const { label, members } of groups) {
    const found = compared(members, { ...options, strata: members.map(({ id }) => data.runs[id].run.group) })
    members.forEach(({ id }, place) => {
      if (found.kept.includes(place)) return
      leftOut.push({ id, reason: members[place].y.some(Number.isFinite) ? "it has no value in this range" : "it has no value yet" })
    })
    if (!found.kept.length) continue
    const names = namesOf(data, members.map(({ id }) => id))
    const ids = found.kept.map((place) => members[place].id)
    const isSingle = ids.length === 1
    const runs = isSingle ? [] : found.kept.map((place, k) => {
      const there = [...found.x.keys()].filter((i) => !Number.isNaN(found.curves[k][i]))
      return { id: members[place].id, label: names[place], x: there.map((i) => found.x[i]), y: there.map((i) => found.curves[k][i]) }
    })
    const { x, mid, n } = found
    const [low, high] = isSingle ? [[], []] : [found.low, found.high]
    answers.push({ label, ids, n_runs: ids.length, x, mid, low, high, n, runs })
  }
  return { groups: answers, left_out: leftOut }
}

function fullName(data, id) {
  const { group, run_id: own } = data.runs[id].run
  return `${group}/${own}`
}

/** Labels each run of a group with its seed if all seeds differ, else with its path. */
function namesOf(data, ids) {
  const seeds = ids.map((id) => data.runs[id].run.seed)
  const isEnough = ids.length > 1 && !seeds.includes(null) && new Set(seeds).size === seeds.length
  return ids.map((id, n) => (isEnough ? `seed ${seeds[n]}` : fullName(data, id)))
}

/** Groups in the order of their first runs: `{label, members}`; members are `{id, x, y}`. */
function groupsOf(data, params, leftOut) {
  const by = params.group_by || "none"
  if (by !== "none" && !Object.hasOwn(data.groupings, by)) throw refusal(422, `No run of this report has a setting ${by}.`)
  const groups = new Map()
  for (const id of listOf(params.ids)) {
    const run = Object.hasOwn(data.runs, id) ? data.runs[id] : null
    const curve = run && curveOf(run, params.series)
    const place = by === "none" ? id : data.groupings[by].groups[id]
    if (!curve) leftOut.push({ id, reason: run ? `it has no ${params.series}` : "it is not in this report" })
    else if (place === undefined) leftOut.push({ id, reason: `it has no setting ${by}` })
    else {
      if (!groups.has(place)) groups.set(place, { label: by === "none" ? fullName(data, id) : data.groupings[by].labels[place], members: [] })
      const values = gaps(curve.mean)
      groups.get(place).members.push({ id, x: curve.x[params.x || "steps"], y: params.smooth ? smoothed(values, curve.counts, params.smooth) : values })
    }
  }
  return groups.values()
}
