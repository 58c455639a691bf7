/** Controls of a view: each shows a value and calls back with another one. Native elements, so that keys work. */

import { h, put, say } from "./dom.js"

/** A few values side by side: `choice("Over", [["steps", "Steps"], ...], onChange)`. */
export function choice(label, options, onChange) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": "false", dataset: { value }, onclick: () => onChange(value) }, text))
  const element = h("div", { class: "control" }, h("span", { "aria-hidden": "true" }, label),
    h("div", { class: "segmented", role: "group", "aria-label": label }, buttons))
  return {
    element,
    set value(value) {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === value))
    },
  }
}

/** One of many: `set(groups, value)` with `groups` as `[[heading, [[value, text], ...]], ...]`. */
export function menu(label, onChange) {
  const select = h("select", { class: "field", onchange: () => onChange(select.value) })
  const element = h("label", { class: "control" }, label, select)
  let shown = ""
  return {
    element,
    set(groups, value) {
      const key = JSON.stringify(groups)
      if (key !== shown) {
        const optionsOf = (options) => options.map(([name, text]) => h("option", { value: name }, text))
        const parts = groups.filter(([, options]) => options.length)
        put(select, parts.map(([heading, options]) => (heading ? h("optgroup", { label: heading }, optionsOf(options)) : optionsOf(options))))
        shown = key
      }
      select.value = value
    },
  }
}

/** One of an ordered list of values: `slider("Smoothing", [["none", "off"], ["mean:10", "10"], ...], onChange)`. */
export function slider(label, steps, onChange) {
  const output = h("output", { class: "slider-value" })
  const input = h("input", { type: "range", min: 0, max: steps.length - 1, step: 1, "aria-label": label })
  const tell = () => {
    const text = steps[input.valueAsNumber][1]
    say(output, text)
    input.setAttribute("aria-valuetext", text)
  }
  input.addEventListener("input", () => {
    tell()
    onChange(steps[input.valueAsNumber][0])
  })
  return {
    element: h("label", { class: "control" }, label, input, output),
    set value(value) {
      input.value = Math.max(0, steps.findIndex(([one]) => one === value))
      tell()
    },
  }
}

/** Yes or no. */
export function toggle(label, onChange) {
  const input = h("input", { type: "checkbox", onchange: () => onChange(input.checked) })
  return {
    element: h("label", { class: "control" }, input, label),
    set value(value) {
      input.checked = value
    },
  }
}
