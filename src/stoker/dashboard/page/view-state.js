/** What the address of a comparison holds, and what each choice may be. */

export const EVALUATION = "eval.mean"
export const X = [["steps", "Steps"], ["episodes", "Episodes"], ["time", "Time"]]
export const STATISTICS = [["mean", "Mean"], ["iqm", "IQM"]]
export const SCALES = [["linear", "Linear"], ["log", "Log"]]
export const SMOOTHINGS = [
  ["none", "off"], ["mean:5", "5"], ["mean:10", "10"], ["mean:20", "20"], ["mean:50", "50"], ["mean:100", "100"],
  ["mean:200", "200"], ["mean:500", "500"], ["mean:1000", "1,000"],
]
const MOST_RUNS = 200
const SMOOTHING = "mean:50"

/** The choices that an address makes; what it does not say, or says wrongly, has its default. */
export function stateOf(query) {
  const one = (value, options, otherwise) => (options.some(([known]) => known === value) ? value : otherwise)
  const some = (text) => (text ? text.split(",").filter((part) => /^[0-9a-f]{16}$/.test(part)) : [])
  const place = (text) => (text !== undefined && Number.isFinite(Number.parseFloat(text)) ? Number.parseFloat(text) : null)
  const [from, to] = [place(query.from), place(query.to)]
  return {
    ids: [...new Set(some(query.ids))].slice(0, MOST_RUNS),
    series: query.series || EVALUATION,
    x: one(query.x, X, "steps"),
    smooth: one(query.smooth, SMOOTHINGS, SMOOTHING),
    group: query.group_by || null,
    statistic: one(query.statistic, STATISTICS, "mean"),
    scale: one(query.scale, SCALES, "linear"),
    lines: query.lines !== "0",
    hide: some(query.hide),
    from: from !== null && to !== null && from < to ? from : null,
    to: from !== null && to !== null && from < to ? to : null,
    order: query.order === "last" ? "last" : "given",
    all: query.all === "1",
    columns: query.columns === "run" ? "run" : "group",
  }
}

/** The query of an address: what differs from the defaults. */
export function queryOf(state) {
  const unless = (value, usual) => (value === usual ? null : value)
  return {
    ids: state.ids.join(","), series: unless(state.series, EVALUATION), x: unless(state.x, "steps"),
    smooth: unless(state.smooth, SMOOTHING), group_by: state.group, statistic: unless(state.statistic, "mean"),
    scale: unless(state.scale, "linear"), lines: state.lines ? null : "0", hide: state.hide.join(","),
    from: state.from === null ? null : Number(state.from.toPrecision(8)), to: state.to === null ? null : Number(state.to.toPrecision(8)),
    order: unless(state.order, "given"), all: state.all ? "1" : null, columns: unless(state.columns, "group"),
  }
}
