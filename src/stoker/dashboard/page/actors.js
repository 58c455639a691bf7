/** The actors of a run as a table: the last episodes of each, and how fast it plays; and the workers that host them. */

import { h, put, renew } from "./dom.js"
import { ABSENT, date, exact, number } from "./format.js"
import { makePaged } from "./paged.js"
import { block } from "./particulars.js"

const COLUMNS = [
  ["actor_id", "Actor"], ["n_episodes", "Episodes"], ["n_steps", "Steps"], ["mean_reward", "Mean reward"],
  ["max_reward", "Best reward"], ["mean_length", "Mean length"], ["steps_per_s", "Steps/s"], ["last_at", "Last ended"],
]
const WORKERS = [
  ["node", "Node"], ["playing", "Playing"], ["starting", "Starting"], ["waiting", "Waiting"], ["ended", "Ended"],
  ["lost_steps", "Lost steps"], ["late_batches", "Late batches"], ["restarts", "Replaced"], ["why", "Why"],
]
const DEFAULTS = { sort: "last_at", order: "desc", text: "", page: 0 }

/** Make the table within an element. */
export function makeActors(element, first) {
  const { id } = first
  const workers = h("div", {})
  const text = h("input", {
    class: "field", type: "search", placeholder: "Filter actors", "aria-label": "Filter actors",
    oninput: (event) => paged.change({ text: event.target.value }),
  })
  const paged = makePaged({
    path: `api/runs/${id}/actors`, noun: "actor", columns: COLUMNS, defaults: DEFAULTS, tableOf,
    show(state) { if (text.value !== state.text) text.value = state.text },
  })
  put(element, workers,
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

  function drawWorkers(nodes) {
    renew(workers, [nodes], () => (nodes.length ? block("Workers", "on the nodes of a cluster", null,
      WORKERS.map(([key, label]) => [label, key === "node" ? "strong" : key === "why" ? "wrap" : "right"]),
      nodes.map((one) => WORKERS.map(([key]) => {
        if (key === "node") return one.node || "no place yet"
        return key === "why" ? one.why : number(one[key])
      }))) : []))
  }

  function update(info) {
    drawWorkers(info.workers)
    paged.ask()
  }

  drawWorkers(first.workers)
  return { keys: paged.keys, take: paged.take, update, destroy: paged.destroy }
}
