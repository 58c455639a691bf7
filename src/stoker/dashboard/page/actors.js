/** The actors of a run as a table: the last episodes of each, and how fast it plays. */

import { h, put } from "./dom.js"
import { ABSENT, date, exact, number } from "./format.js"
import { makePaged } from "./paged.js"

const COLUMNS = [
  ["actor_id", "Actor"], ["n_episodes", "Episodes"], ["n_steps", "Steps"], ["mean_reward", "Mean reward"],
  ["max_reward", "Best reward"], ["mean_length", "Mean length"], ["steps_per_s", "Steps/s"], ["last_at", "Last ended"],
]
const DEFAULTS = { sort: "last_at", order: "desc", text: "", page: 0 }

/** Make the table within an element. */
export function makeActors(element, { id }) {
  const text = h("input", {
    class: "field", type: "search", placeholder: "Filter actors", "aria-label": "Filter actors",
    oninput: (event) => paged.change({ text: event.target.value }),
  })
  const paged = makePaged({
    path: `api/runs/${id}/actors`, noun: "actor", columns: COLUMNS, defaults: DEFAULTS, tableOf,
    show(state) { if (text.value !== state.text) text.value = state.text },
  })
  put(element,
    h("div", { class: "toolbar run-bar" }, text, h("span", { class: "muted" }, "Rewards, lengths and speeds of the last 100 episodes"),
      h("span", { class: "grow" }), paged.count),
    paged.table, paged.pager)

  function tableOf(rows) {
    return h("table", {},
      h("thead", {}, h("tr", {}, COLUMNS.map(([key, label]) => paged.heading(key, label)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, COLUMNS.map(([key]) => cell(key, row[key]))))))
  }

  function cell(key, value) {
    if (key === "actor_id") return h("td", { class: "right strong" }, String(value))
    if (key === "last_at") return h("td", { class: "right muted" }, date(value))
    return h("td", { class: "right", title: value === null ? null : exact(value) }, value === null ? ABSENT : number(value))
  }

  return { keys: paged.keys, take: paged.take, update: paged.ask, destroy: paged.destroy }
}
