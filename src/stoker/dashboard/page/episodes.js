/** Every episode of a run as a table: sorted, filtered, a page at a time. */

import { address, isReport } from "./api.js"
import { choice } from "./choices.js"
import { h, put } from "./dom.js"
import { ABSENT, date, exact, number } from "./format.js"
import { makePaged } from "./paged.js"

const MOST_EXTRAS = 12
const COLUMNS = [
  ["episode", "Episode"], ["total_reward", "Reward"], ["length", "Length"], ["total_steps", "Step"], ["time", "Ended"],
]
const ENDS = [["", "Any end"], ["Terminated", "Terminated"], ["Truncated", "Truncated"]]
const DEFAULTS = { kind: "train", sort: "episode", order: "desc", page: 0, status: "", reward_from: "", reward_to: "" }

/** Make the table within an element; `file(name)` gives the stem of a file's name. */
export function makeEpisodes(element, { id }, file) {
  const change = (changes) => paged.change(changes)
  const kind = choice("Of", [["train", "Training"], ["eval", "Evaluation"]], (value) => change({ kind: value }))
  const status = h("select", {
    class: "field", "aria-label": "How it ended", onchange: () => change({ status: status.value }),
  },
  ENDS.map(([value, text]) => h("option", { value }, text)))
  const bound = (key, label) => h("input", {
    class: "field bound", type: "number", step: "any", placeholder: label, "aria-label": `Reward ${label}`,
    onchange: (event) => change({ [key]: event.target.value }),
  })
  const from = bound("reward_from", "from")
  const to = bound("reward_to", "to")
  const inOrder = (text, order) => h("button", { onclick: () => change({ sort: "total_reward", order }) }, text)
  const csv = h("a", { class: "button quiet", download: `${file("episodes")}.csv`, hidden: isReport() }, "CSV")
  const paged = makePaged({
    path: `api/runs/${id}/episodes`, noun: "episode", columns: COLUMNS, defaults: DEFAULTS, tableOf,
    show(state) {
      if (state.kind !== "eval") state.kind = "train"
      kind.value = state.kind
      status.value = state.status
      from.value = state.reward_from
      to.value = state.reward_to
    },
    answered() {
      const { page, ...wanted } = state
      csv.href = address(`api/runs/${id}/episodes.csv`, wanted)
    },
  })
  const { state, heading } = paged
  put(element,
    h("div", { class: "toolbar run-bar" }, kind.element, status, h("span", { class: "control" }, "Reward", from, to),
      inOrder("Best first", "desc"), inOrder("Worst first", "asc"), h("span", { class: "grow" }), paged.count, csv),
    paged.table, paged.pager)

  function tableOf(rows) {
    const extras = [...new Set(rows.flatMap((row) => Object.keys(row.extras ?? {})))].slice(0, MOST_EXTRAS)
    const isTrain = state.kind === "train"
    const name = (text) => h("th", { class: "right" }, text)
    return h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([key, text]) => heading(key, text)), h("th", {}, "End"),
        isTrain ? name("Actor") : null, name("Attempt"), extras.map((extra) => name(extra.replaceAll("_", " "))))),
      h("tbody", {}, rows.map((row) => h("tr", {},
        cell(row.episode === null ? ABSENT : number(row.episode)),
        cell(number(row.total_reward, 5), "strong", exact(row.total_reward)),
        cell(number(row.length)), cell(number(row.total_steps)), cell(date(row.time), "muted"), h("td", {}, row.status),
        isTrain ? cell(row.actor_id ?? ABSENT) : null, cell(row.attempt),
        extras.map((extra) => cell(number(row.extras[extra]), "", exact(row.extras[extra])))))))
  }

  const cell = (text, kindOf = "", title = null) => h("td", { class: `right ${kindOf}`, title }, text)

  return {
    keys: paged.keys,
    take: paged.take,
    update() { if (state.page === 0) paged.ask() },
    destroy: paged.destroy,
  }
}
