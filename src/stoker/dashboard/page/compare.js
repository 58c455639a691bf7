/**
 * Several runs in one picture: a line for each, or seeds grouped to a mean with its interval, and how their configs
 * differ. The address holds the whole view: which runs, and each choice that was made.
 *
 * The server groups and averages. Hiding a line here never changes another one: a group's mean is always that of all
 * of its runs that were chosen.
 */

import { ApiError, get, listen } from "./api.js"
import { makeChart } from "./chart.js"
import { choice, menu, slider, toggle } from "./choices.js"
import { captionOf } from "./caption.js"
import { makeDifferences } from "./differences.js"
import { download, h, put, say } from "./dom.js"
import { csvOf, fileName } from "./download.js"
import { plural } from "./format.js"
import { labelsOf } from "./labels.js"
import { makeLegend } from "./legend.js"
import { layersOf, rowsOf } from "./lines.js"
import { groupingsOffered, labelIn, seriesOffered } from "./offers.js"
import { makePicker } from "./picker.js"
import { link, setQuery } from "./router.js"
import { curveColor, curveDash, onTheme } from "./theme.js"
import { SCALES, SMOOTHINGS, STATISTICS, X, queryOf, stateOf } from "./view-state.js"

const POINTS = 400
const MOST_DESCRIBED = 8
const QUIET_MS = 1500
const DRAWN_ANEW = ["ids", "series", "x", "smooth", "group", "statistic", "from", "to"]

/** Show the view within an element; `query` is what the address says, `frame` what is around the view. */
export async function show(element, query, frame) {
  const view = new Comparison(element, query, frame)
  await view.begin()
  return view
}

class Comparison {
  constructor(element, query, frame) {
    this.frame = frame
    this.state = stateOf(query)
    this.runs = []
    this.series = new Map()
    this.answer = null
    this.diff = null
    this.asked = 0
    this.ends = []
    this.layOut(element)
  }

  layOut(element) {
    const set = (key) => (value) => this.set({ [key]: value })
    this.inputs = {
      series: menu("Series", set("series")),
      x: choice("Over", X, (x) => this.set({ x, from: null, to: null })),
      group: menu("Group by", set("group")),
      statistic: choice("Line", STATISTICS, set("statistic")),
      smooth: slider("Mean of", SMOOTHINGS, set("smooth")),
      scale: choice("Scale", SCALES, set("scale")),
      lines: toggle("Single runs", set("lines")),
    }
    this.subtitle = h("p", { class: "muted" })
    this.problem = h("div", { class: "notice error", role: "alert", hidden: true })
    this.canvas = h("div", { class: "compare-chart" })
    this.whole = h("button", { type: "button", class: "compare-whole", hidden: true, onclick: () => this.set({ from: null, to: null }) }, "Show all")
    this.caption = h("div", { class: "compare-caption muted" })
    this.legend = makeLegend({
      onToggle: (key, isOnly) => this.toggle(key, isOnly), onPoint: (key, id) => this.point(key, id), onOrder: (order) => this.set({ order }),
    })
    this.differences = makeDifferences((changes) => this.set(changes))
    this.picker = makePicker((ids) => this.set({ ids, hide: [] }), () => this.listRuns())
    this.picture = h("section", { class: "panel compare-picture", "aria-label": "Curves" },
      h("div", { class: "toolbar" }, Object.values(this.inputs).map((input) => input.element)),
      h("div", { class: "compare-body" },
        h("div", { class: "compare-plot" }, this.canvas, this.whole, this.caption), this.legend.element))
    this.actions = h("div", { class: "compare-actions" },
      h("button", { type: "button", title: "Save the picture with its legend", onclick: () => this.savePicture() }, "PNG"),
      h("button", { type: "button", title: "Save the lines and bands as a table", onclick: () => this.saveTable() }, "CSV"))
    put(element, h("div", { class: "compare" },
      h("header", { class: "compare-header" }, h("div", { class: "grow" }, h("h1", {}, "Compare runs"), this.subtitle), this.actions),
      this.picker.element, this.problem, this.picture, this.differences.element))
  }

  async begin() {
    this.frame.setCrumbs([["Runs", link("runs")], ["Compare", null]])
    this.ends.push(onTheme(() => this.draw()))
    this.ends.push(listen(null, { runs: () => this.refreshSoon(), state: this.frame.setConnection }))
    const n = this.state.ids.length
    this.picture.hidden = this.differences.element.hidden = this.actions.hidden = true
    say(this.subtitle, n ? `Reading ${plural(n, "run")}…` : "")
    this.picker.show([], this.state.ids)
    if (!n) this.picker.open()
    await this.refresh()
  }

  /** The address has changed: by a link, by typing, by Back. */
  setQuery(query) {
    this.state = stateOf(query)
    return this.refresh()
  }

  destroy() {
    clearTimeout(this.soon)
    this.asked = Infinity
    for (const end of this.ends) end()
    this.chart?.destroy()
  }

  /** A person has chosen something: it is drawn, and it is in the address. */
  set(changes) {
    Object.assign(this.state, changes)
    const isZoom = "from" in changes
    setQuery(queryOf(this.state), { push: isZoom || "ids" in changes })
    this.picker.show(this.runs, this.state.ids) // at once: the next choice adds to this one
    if (this.answer) this.drawChoices()
    if (DRAWN_ANEW.some((key) => key in changes)) this.refresh()
    else this.draw()
  }

  refreshSoon() {
    if (this.soon) return
    this.soon = setTimeout(() => {
      this.soon = null
      this.refresh()
    }, QUIET_MS)
  }

  async refresh() {
    const asked = (this.asked += 1)
    this.picture.setAttribute("aria-busy", "true")
    try {
      const found = await this.fetched()
      if (asked !== this.asked) return
      Object.assign(this, found)
      this.tell(null)
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem
      if (asked !== this.asked) return
      this.tell(problem)
    }
    this.picture.setAttribute("aria-busy", "false")
    this.draw()
  }

  async fetched() {
    const { state } = this
    const isKnown = this.runs.length > 0 && state.ids.every((id) => this.runs.some((run) => run.id === id))
    const { runs, hint } = isKnown ? this : await get("api/runs")
    const known = new Set(runs.map((run) => run.id))
    const ids = state.ids.filter((id) => known.has(id))
    if (!ids.length) return { runs, hint, answer: null, diff: null }
    const isEvaluation = state.series.startsWith("eval.")
    const params = {
      ids: ids.join(","), series: state.series, x: state.x, smooth: isEvaluation || state.smooth === "none" ? null : state.smooth,
      points: POINTS, group_by: this.groupOf(runs, ids), statistic: state.statistic, from: state.from, to: state.to,
    }
    const [answer, diff] = await Promise.all([
      get("api/compare", params), get("api/diff", { ids: ids.join(",") }), ...this.describe(runs, ids),
    ])
    return { runs, hint, answer, diff }
  }

  /** The list of runs may have grown: it is asked for when somebody wants to choose. */
  async listRuns() {
    try {
      this.runs = (await get("api/runs")).runs
    } catch (problem) {
      if (!(problem instanceof ApiError)) throw problem
      return this.tell(problem)
    }
    this.picker.show(this.runs, this.state.ids)
  }

  /** Learn which series the runs have, from a few of each version. */
  describe(runs, ids) {
    const firsts = new Map()
    for (const run of runs) if (ids.includes(run.id) && !firsts.has(run.group)) firsts.set(run.group, run.id)
    const wanted = [...new Set([...firsts.values(), ...ids])].slice(0, MOST_DESCRIBED).filter((id) => !this.series.has(id))
    return wanted.map(async (id) => {
      const { series } = await get(`api/runs/${id}`)
      this.series.set(id, series)
    })
  }

  /** The key to group by: what was chosen, else the version if one has several of the runs. */
  groupOf(runs = this.runs, ids = this.state.ids) {
    if (this.state.group !== null) return this.state.group
    const groups = runs.filter((run) => ids.includes(run.id)).map((run) => run.group)
    return new Set(groups).size < groups.length ? "version" : "none"
  }

  tell(problem) {
    this.problem.hidden = problem === null
    put(this.problem, problem !== null && h("p", {}, problem.message))
  }

  draw() {
    const { answer, state } = this
    this.picker.show(this.runs, state.ids)
    const chosen = this.runs.filter((run) => state.ids.includes(run.id))
    const hasRuns = answer !== null
    this.picture.hidden = this.differences.element.hidden = this.actions.hidden = !hasRuns
    this.labels = labelsOf(chosen)
    if (!hasRuns) {
      say(this.subtitle, this.hint ?? "Choose two runs or more, or all seeds of a version: they are drawn in one picture.")
      return
    }
    this.entries = this.entriesOf(answer)
    this.drawChoices()
    say(this.subtitle, this.sentence())
    this.drawChart()
    this.legend.show(this.entries, state.x, state.order)
    this.drawCaption(chosen)
    this.drawDifferences()
  }

  drawCaption(chosen) {
    const drawn = new Set(this.entries.flatMap(({ group }) => group.ids))
    const envs = new Set(chosen.filter(({ id, env }) => drawn.has(id) && env).map(({ env }) => env))
    const parts = captionOf(this.answer, {
      ...this.state, group: this.groupOf(), names: this.labels, missing: this.state.ids.length - chosen.length, nEnvs: envs.size,
      unseen: this.unseen,
    })
    const text = h("div", {}, parts).textContent
    if (text !== this.caption.textContent) put(this.caption, parts) // a list that somebody has opened stays open
  }

  sentence() {
    const nRuns = this.entries.reduce((n, { group }) => n + group.n_runs, 0)
    const isGrouped = this.groupOf() !== "none"
    return isGrouped ? `${plural(nRuns, "run")} in ${plural(this.entries.length, "group")}` : plural(nRuns, "run")
  }

  entriesOf(answer) {
    const isGrouped = this.groupOf() !== "none"
    return answer.groups.map((group, n) => ({
      key: group.ids[0], group, paint: n, color: curveColor(n), dash: curveDash(n), isHidden: this.state.hide.includes(group.ids[0]),
      label: isGrouped ? group.label : this.labels.get(group.ids[0]) ?? group.label,
    }))
  }

  drawChoices() {
    const { inputs, state } = this
    this.offered = seriesOffered(this.series.values(), state.series)
    inputs.series.set(this.offered, state.series)
    inputs.group.set(groupingsOffered(this.diff, this.groupOf()), this.groupOf())
    inputs.x.value = state.x
    inputs.statistic.value = state.statistic
    inputs.smooth.value = state.smooth
    inputs.smooth.element.hidden = state.series.startsWith("eval.")
    inputs.scale.value = state.scale
    inputs.lines.value = state.lines
    const isGrouped = this.entries.some(({ group }) => group.n_runs > 1)
    inputs.lines.element.hidden = inputs.statistic.element.hidden = !isGrouped
  }

  drawChart() {
    const { state } = this
    if (!this.chart) {
      this.chart = makeChart(this.canvas, { title: "Comparison", x: state.x, height: innerWidth < 700 ? 300 : 440, clipsBands: true })
      this.chart.onZoom((from, to) => this.set({ from, to }))
    }
    this.chart.setX(state.x)
    this.chart.setScale(state.scale)
    const { layers, unseen } = layersOf(this.entries, this.labels, state.lines && this.groupOf() !== "none")
    this.unseen = unseen
    this.chart.setData(layers)
    this.chart.setRange(state.from, state.to)
    this.whole.hidden = state.from === null
  }

  drawDifferences() {
    if (!this.diff) return
    const isGrouped = this.groupOf() !== "none" && this.entries.some(({ group }) => group.n_runs > 1)
    const by = isGrouped ? this.state.columns : "run"
    const columns = by === "group"
      ? this.entries.map(({ label, color: line, group }) => ({ label, color: line, ids: group.ids }))
      : this.entries.flatMap(({ color: line, group }) => group.ids.map((id) => ({ label: this.labels.get(id) ?? id, color: line, ids: [id] })))
    this.differences.show(this.diff, columns, { isAll: this.state.all, by, hasGroups: isGrouped })
  }

  toggle(key, isOnly) {
    const others = this.entries.map((entry) => entry.key).filter((one) => one !== key)
    const { hide } = this.state
    if (isOnly) this.set({ hide: others.every((one) => hide.includes(one)) && !hide.includes(key) ? [] : others })
    else this.set({ hide: hide.includes(key) ? hide.filter((one) => one !== key) : [...hide, key] })
  }

  point(key, id = null) {
    this.chart?.highlight(key === null ? null : (layer) => (id === null ? layer.key === key : layer.id === id))
  }

  async savePicture() {
    const blob = await this.chart.toPng({
      title: `${labelIn(this.offered, this.state.series)} over ${this.state.x}`, subtitle: this.caption.querySelector("p")?.textContent ?? "",
      entries: this.entries.filter(({ isHidden }) => !isHidden),
    })
    download(fileName(["compare", this.state.series, this.state.x], "png"), blob)
  }

  saveTable() {
    const names = ["line", "run", this.state.x, labelIn(this.offered, this.state.series), "low", "high", "runs"]
    const text = csvOf(names, rowsOf(this.entries, this.labels))
    download(fileName(["compare", this.state.series, this.state.x], "csv"), new Blob([text], { type: "text/csv;charset=utf-8" }))
  }
}
