/** What a comparison draws and saves: layers of the chart, and rows of a table. */

import { plural } from "./format.js"

const MOST_SINGLES = 60

/**
 * The layers of groups, with their single runs behind them: `{layers, unseen}`; `unseen` counts single runs that are
 * too many to be drawn. `entries` are `{key, label, paint, group, isHidden}`; `labels` names runs by id.
 */
export function layersOf(entries, labels, withSingles) {
  const shown = entries.filter(({ isHidden }) => !isHidden)
  const several = withSingles ? shown.filter(({ group }) => group.n_runs > 1) : []
  const n = several.reduce((sum, { group }) => sum + group.n_runs, 0)
  const look = { dash: [], width: 1, opacity: Math.max(0.15, Math.min(0.4, 8 / n)), isQuiet: true }
  const singles = several.flatMap(({ key, paint, group }) =>
    group.runs.map(({ id, x, y }) => ({ key, id, label: labels.get(id) ?? id, x, y, color: paint, ...look })))
  const isTooMany = singles.length > MOST_SINGLES
  return {
    layers: [...(isTooMany ? [] : singles), ...shown.flatMap((entry) => lineOf(entry, shown.length))],
    unseen: isTooMany ? singles.length : 0,
  }
}

/** A group as its line with a band where all of its runs are, and dotted where some have not begun or have ended. */
function lineOf({ key, label, paint, group }, nLines) {
  const { x, n, n_runs: nRuns } = group
  const base = { key, label, x, color: paint, width: 2 }
  if (nRuns === 1) return [{ ...base, y: group.mid }]
  const isWhole = n.includes(nRuns) ? (i) => n[i] === nRuns : () => true
  const kept = (values) => values.map((value, i) => (isWhole(i) ? value : null))
  const line = {
    ...base, y: kept(group.mid), low: kept(group.low), high: kept(group.high), alpha: Math.min(0.3, 2 / nLines), note: (i) => `${n[i]} of ${plural(nRuns, "run")}`,
  }
  if (n.every((_, i) => isWhole(i))) return [line]
  const isPart = (i) => !isWhole(i) || (i > 0 && !isWhole(i - 1)) || (i < n.length - 1 && !isWhole(i + 1))
  const part = { ...base, y: group.mid.map((value, i) => (isPart(i) ? value : null)), width: 1.25, dash: [2, 4], isQuiet: true }
  return [part, line]
}

/** Rows `[line, run, x, value, low, high, runs]`: each group, and each of its single runs. */
export function rowsOf(entries, labels) {
  const rows = []
  for (const { label, group } of entries) {
    group.x.forEach((x, i) => rows.push([label, "", x, group.mid[i], group.low[i] ?? null, group.high[i] ?? null, group.n[i]]))
    if (group.n_runs === 1) continue
    for (const { id, x, y } of group.runs) x.forEach((at, i) => rows.push([label, labels.get(id) ?? id, at, y[i], null, null, 1]))
  }
  return rows
}
