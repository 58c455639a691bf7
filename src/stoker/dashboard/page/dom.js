/**
 * DOM nodes from plain data. Text only ever becomes a text node, and styles are set as properties, so that nothing
 * that a run says can become markup, and the page needs no inline styles.
 */

const SVG = "http://www.w3.org/2000/svg"

/**
 * Make an element: `h("a", {class: "run", href: "#/", onclick: open}, "text", child, [more])`.
 *
 * Attributes that are null, undefined or false are left out, true is an empty attribute. `on...` is a listener,
 * `style` and `dataset` are objects. Children that are null or false are skipped.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children)
}

/** As `h`, for elements of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children)
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one)
    else if (name === "dataset") Object.assign(element.dataset, value)
    else element.setAttribute(name, value === true ? "" : String(value))
  }
  append(element, children)
  return element
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue
    if (Array.isArray(child)) append(element, child)
    else element.append(child instanceof Node ? child : document.createTextNode(String(child)))
  }
}

/** Replace everything within an element. */
export function put(element, ...children) {
  const fragment = document.createDocumentFragment()
  append(fragment, children)
  element.replaceChildren(fragment)
  return element
}

const shown = new WeakMap()

/**
 * As `put`, where the content may be what it was: `key` says what is shown, and the same key changes nothing. A control
 * that had the focus hands it to the one at its place.
 */
export function renew(element, key, make) {
  const text = JSON.stringify(key)
  if (shown.get(element) === text) return
  shown.set(element, text)
  const controls = () => [...element.querySelectorAll("a, button, input, select, [tabindex]")]
  const at = controls().indexOf(document.activeElement)
  put(element, make())
  if (at >= 0) controls()[at]?.focus({ preventScroll: true })
}

/** Set the text of an element, and touch the document only if it differs. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text
}

const ICONS = {
  live: ["circle", { cx: 6, cy: 6, r: 3.5, fill: "currentColor" }],
  stalled: ["path", { d: "M6 1.5 11 10.5H1Z", fill: "currentColor" }],
  done: ["path", { d: "M2 6.5 5 9.5 10 3", fill: "none", stroke: "currentColor", "stroke-width": 1.8 }],
  stopped: ["rect", { x: 2.5, y: 2.5, width: 7, height: 7, rx: 1, fill: "currentColor" }],
  crashed: ["path", { d: "M3 3 9 9M9 3 3 9", fill: "none", stroke: "currentColor", "stroke-width": 1.8 }],
  ended: ["circle", { cx: 6, cy: 6, r: 3.2, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }],
  broken: ["path", { d: "M6 1 11 6 6 11 1 6Z", fill: "currentColor" }],
}

/** The sign of a status: a shape of its own for each, so that color alone never decides. */
export function statusIcon(status) {
  const [tag, attributes] = Object.hasOwn(ICONS, status) ? ICONS[status] : ICONS.ended
  return svg("svg", { class: `icon ${status}`, viewBox: "0 0 12 12", "aria-hidden": "true" }, svg(tag, attributes))
}

/** Copy a text. Where the browser keeps the clipboard for secure pages, by way of a field. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text)
  } catch (problem) {
    if (!(problem instanceof DOMException || problem instanceof TypeError)) throw problem
    const field = h("textarea", { class: "hidden-text" })
    field.value = text
    document.body.append(field)
    field.select()
    document.execCommand("copy")
    field.remove()
  }
}

/** Offer data as a file. */
export function download(name, blob) {
  const url = URL.createObjectURL(blob)
  const link = h("a", { href: url, download: name })
  document.body.append(link)
  link.click()
  link.remove()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}
