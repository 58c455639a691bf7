/** Which runs are compared: a list to search in, with a box for each run and for each version. */

import { h, put, say, statusIcon } from "./dom.js"
import { age, compact, number, plural } from "./format.js"
import { fullName } from "./labels.js"

const MOST_ROWS = 200

/** `onChoose(ids)`: the chosen runs, in the order in which they were chosen; `onOpen()`: somebody wants to choose. */
export function makePicker(onChoose, onOpen) {
  const search = h("input", { type: "search", class: "field", placeholder: "search name, version, setting", "aria-label": "Search runs", oninput: () => draw() })
  const list = h("div", { class: "picker-list" })
  const note = h("p", { class: "muted" })
  const title = h("span", {})
  const clear = h("button", { type: "button", onclick: () => onChoose([]) }, "Choose none")
  const element = h("details", { class: "panel picker", ontoggle: () => { if (element.open) { draw(); onOpen() } } },
    h("summary", {}, title), h("div", { class: "picker-body" }, h("div", { class: "picker-head" }, search, clear), list, note))
  let runs = []
  let chosen = []

  function change(ids, isIn) {
    const others = chosen.filter((id) => !ids.includes(id))
    onChoose(isIn ? [...others, ...ids] : others)
  }

  function box(ids, label) {
    const n = ids.filter((id) => chosen.includes(id)).length
    const input = h("input", { type: "checkbox", "aria-label": label, dataset: { key: ids[0] + ids.length }, onchange: () => change(ids, input.checked) })
    input.checked = n === ids.length
    input.indeterminate = n > 0 && n < ids.length
    return input
  }

  function draw() {
    if (!element.open) return
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean)
    const found = runs.filter((run) => words.every((word) => textOf(run).includes(word)))
    const groups = Map.groupBy ? Map.groupBy(found.slice(0, MOST_ROWS), (run) => run.group) : grouped(found.slice(0, MOST_ROWS))
    const held = document.activeElement?.dataset?.key
    put(list, [...groups].map(([group, members]) =>
      h("section", {},
        h("label", { class: "picker-group" }, box(members.map(({ id }) => id), `All runs of ${group}`), h("span", { class: "label" }, group),
          h("span", { class: "muted" }, plural(members.length, "run"))),
        members.map((run) => h("label", { class: "picker-run" }, box([run.id], fullName(run)), statusIcon(run.status),
          h("span", { class: "label" }, run.seed === null || run.seed === undefined ? run.run_id ?? run.path : `seed ${run.seed} · ${run.run_id}`),
          h("span", { class: "number" }, `${compact(run.total_steps)} steps`),
          h("span", { class: "number" }, run.best_value === null ? "" : `best ${number(run.best_value)}`),
          h("span", { class: "number muted" }, age(run.last_updated)))))))
    put(note, found.length === 0 ? "No run has these words." : found.length > MOST_ROWS
      ? `The first ${MOST_ROWS} of ${found.length} runs are listed: search for the others.` : false)
    for (const one of list.querySelectorAll("input")) if (held && one.dataset.key === held) one.focus()
  }

  return {
    element,
    show(all, ids) {
      runs = all
      chosen = ids
      clear.hidden = ids.length === 0
      say(title, ids.length ? `${plural(ids.length, "run")} chosen` : "Choose runs")
      draw()
    },
    open() {
      element.open = true
    },
  }
}

function textOf(run) {
  const settings = Object.entries(run.settings ?? {}).map(([key, value]) => `${key}=${value}`)
  return [fullName(run), run.status, run.env, run.agent, ...settings].join(" ").toLowerCase()
}

function grouped(runs) {
  const groups = new Map()
  for (const run of runs) groups.set(run.group, [...(groups.get(run.group) ?? []), run])
  return groups
}
