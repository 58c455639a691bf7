/** Keys of the page: each is bound with the words that the dialog of `?` shows. */

import { h, put } from "./dom.js"

const groups = new Set()

/**
 * Bind keys until the returned function is called: `[[key, what it does, action], ...]`.
 *
 * Keys are left alone while a person types into a field, and with Ctrl, Alt or Meta.
 */
export function bindKeys(keys, group) {
  const bound = { group, keys }
  groups.add(bound)
  return () => { groups.delete(bound) }
}

const CHART_KEYS = [
  ["Drag", "Zoom into a range"],
  ["Ctrl + wheel", "Zoom at the pointer; pinch on a touch screen"],
  ["Shift + wheel", "Move along"],
  ["Double click", "Show all"],
  ["← →", "On a focused chart: read values (with Shift in larger steps)"],
  ["+ −", "On a focused chart: zoom"],
]

const FIELDS = "input:not([type=checkbox]):not([type=range]), textarea, select"
const NAMES = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" }

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
  const target = event.target
  const isField = target instanceof HTMLElement && target.matches(FIELDS)
  if (isField || document.querySelector("dialog[open]")) return
  for (const { keys } of [...groups].reverse()) {
    const found = keys.find(([key]) => key === event.key)
    if (found) {
      event.preventDefault()
      found[2](event)
      return
    }
  }
})

/** Show every key that does something now. */
export function showKeys() {
  const dialog = h("dialog", {
    "aria-label": "Keys", onclose: () => dialog.remove(),
    onclick: (event) => { if (event.target === dialog) dialog.close() }, // beside it
  })
  put(dialog,
    [...groups].map(({ group, keys }) => [h("h3", {}, group), list(keys)]),
    h("h3", {}, "Charts"), list(CHART_KEYS),
    h("button", { onclick: () => dialog.close() }, "Close"))
  document.body.append(dialog)
  dialog.showModal()
}

/** Keys that do the same stand together. */
function list(rows) {
  const namesOf = (what) => rows.filter(([, other]) => other === what).flatMap(([key]) => (NAMES[key] ?? key).split(" + "))
  return h("dl", { class: "keys" }, [...new Set(rows.map(([, what]) => what))].map((what) => [
    h("dt", {}, namesOf(what).map((name) => h("kbd", {}, name))), h("dd", {}, what)]))
}
