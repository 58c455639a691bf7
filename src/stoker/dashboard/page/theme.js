/** Light and dark: the system's choice until a person makes one, and the colors that canvases need. */

const KEY = "stoker-theme"
const listeners = new Set()
const system = matchMedia("(prefers-color-scheme: dark)")
let known = null

/** A chosen theme outlives the page where the browser lets it; a report opened from a file may not store anything. */
function stored(value) {
  try {
    if (value === undefined) return localStorage.getItem(KEY)
    localStorage.setItem(KEY, value)
  } catch (problem) {
    if (!(problem instanceof DOMException)) throw problem
  }
  return value ?? null
}

export function isDark() {
  const chosen = document.documentElement.dataset.theme
  return chosen ? chosen === "dark" : system.matches
}

export function toggleTheme() {
  const next = isDark() ? "light" : "dark"
  document.documentElement.dataset.theme = next
  stored(next)
  announce()
}

/** Call back when colors have changed. Returns a function that ends it. */
export function onTheme(callback) {
  listeners.add(callback)
  return () => listeners.delete(callback)
}

function announce() {
  known = null
  for (const callback of [...listeners]) callback()
}

/** A color of the style sheet as canvases want it: `color("accent")`, `color("muted")`. */
export function color(name) {
  known ??= new Map()
  if (!known.has(name)) {
    const probe = document.createElement("span")
    probe.style.setProperty("color", `var(--${name})`)
    document.body.append(probe)
    known.set(name, getComputedStyle(probe).color)
    probe.remove()
  }
  return known.get(name)
}

/** The color of the nth curve: Okabe and Ito's, told apart with every kind of color vision. */
export function curveColor(n) {
  return color(`curve-${n % N_COLORS}`)
}

export const N_COLORS = 8

/** The dashes of the nth curve: beyond the eighth, color is not enough. */
export function curveDash(n) {
  return [[], [7, 4], [2, 3], [9, 3, 2, 3]][Math.floor(n / N_COLORS) % 4]
}

/** A color with another opacity. */
export function faded(name, alpha) {
  const text = name.startsWith("rgb") ? name : color(name)
  const [r, g, b] = text.match(/[\d.]+/g)
  return `rgba(${r}, ${g}, ${b}, ${alpha})`
}

const chosen = stored()
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen
system.addEventListener("change", announce)
