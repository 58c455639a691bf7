/** Files made in the browser: tables as CSV, and a chart with its title and legend as a picture. */

/** A name of a file that every system takes, from texts that may hold anything. */
export function fileName(parts, ending) {
  const stem = parts.join("-").normalize("NFC").replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+/, "").slice(0, 120)
  return `${stem || "stoker"}.${ending}`
}

/**
 * A table as RFC 4180 has it. Texts that a spreadsheet would run as a formula get an apostrophe before them; absent
 * numbers are empty.
 */
export function csvOf(names, rows) {
  return [names, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("")
}

function cell(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return ""
  if (typeof value === "number") return String(value)
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}

/**
 * A canvas with a title above and a legend below it, as a PNG.
 *
 * `entries` are `{label, color, dash}`; `colors` are `{background, text, muted}`; `ratio` is pixels for each CSS pixel.
 */
export function pictureOf(canvas, { title, subtitle, entries, colors, ratio }) {
  const side = 16 * ratio
  const line = 20 * ratio
  const wide = canvas.width + 2 * side
  const picture = document.createElement("canvas")
  const pen = picture.getContext("2d")
  const font = (weight, size) => `${weight} ${size * ratio}px ${getComputedStyle(document.body).fontFamily}`
  pen.font = font(400, 12)
  const rows = inRows(pen, entries, wide - 2 * side, ratio)
  const top = side + (title ? line * 1.2 : 0) + (subtitle ? line : 0)
  picture.width = wide
  picture.height = Math.ceil(top + canvas.height + rows.length * line + side * (rows.length ? 1.5 : 1))
  pen.fillStyle = colors.background
  pen.fillRect(0, 0, picture.width, picture.height)
  pen.textBaseline = "middle"
  let y = side + line / 2
  for (const [text, style, weight, size] of [[title, colors.text, 600, 15], [subtitle, colors.muted, 400, 12]]) {
    if (!text) continue
    pen.font = font(weight, size)
    pen.fillStyle = style
    pen.fillText(text, side, y, wide - 2 * side)
    y += line
  }
  pen.drawImage(canvas, side, top)
  pen.font = font(400, 12)
  y = top + canvas.height + side / 2 + line / 2
  for (const row of rows) {
    for (const { entry, x, text } of row) {
      pen.strokeStyle = entry.color
      pen.lineWidth = 2.5 * ratio
      pen.setLineDash((entry.dash ?? []).map((length) => length * ratio))
      pen.beginPath()
      pen.moveTo(side + x, y)
      pen.lineTo(side + x + 18 * ratio, y)
      pen.stroke()
      pen.fillStyle = colors.text
      pen.fillText(text, side + x + 24 * ratio, y)
    }
    y += line
  }
  return new Promise((done) => picture.toBlob(done, "image/png"))
}

function inRows(pen, entries, wide, ratio) {
  const rows = []
  let x = Infinity
  for (const entry of entries) {
    const text = entry.label.length > 80 ? `${entry.label.slice(0, 79)}…` : entry.label
    const needed = pen.measureText(text).width + 48 * ratio
    if (x + needed > wide) {
      rows.push([])
      x = 0
    }
    rows.at(-1).push({ entry, x, text })
    x += needed
  }
  return rows
}
