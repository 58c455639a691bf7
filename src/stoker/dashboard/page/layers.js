/** Layers of a chart as the columns that uPlot draws: one common x, several y. */

/**
 * Merge layers with x values of their own into one table.
 *
 * Rows are merged as in a merge sort: points of one layer that share an x keep a row each, so that none is lost.
 * A layer that has no point in a row holds undefined there, which is no gap; null is one.
 *
 * Returns `{data, places, hasNegative, largest}`; a place holds the columns `y`, `low`, `high` (and for stacks `below`
 * and `floor`) of a layer, and `index`: for each row the layer's own point, or -1.
 */
export function align(layers) {
  const places = []
  let columns = 1
  const take = () => columns++
  let floor = null
  let below = null
  for (const layer of layers) {
    const place = { y: null, low: null, high: null, below: null, floor: null, index: [] }
    if (layer.kind === "stack") {
      floor ??= take()
      place.floor = floor
      place.below = below ?? floor
    } else if (layer.low) {
      place.high = take()
      place.low = take()
    }
    place.y = take()
    if (layer.kind === "stack") below = place.y
    places.push(place)
  }
  const data = Array.from({ length: columns }, () => [])
  const at = layers.map(() => 0)
  const first = layers[0]?.x
  const isShared = layers.length > 0 && layers.every((layer) => layer.x === first)
  let hasNegative = false
  let largest = 0
  const put = (row, k, i) => {
    const layer = layers[k]
    const place = places[k]
    const value = layer.y[i]
    place.index[row] = i
    if (value !== null && value <= 0) hasNegative = true
    if (Math.abs(value) > largest) largest = Math.abs(value)
    data[place.y][row] = value
    if (place.high !== null) {
      data[place.high][row] = layer.high[i]
      data[place.low][row] = layer.low[i]
      if (layer.low[i] !== null && layer.low[i] <= 0) hasNegative = true
    }
    if (layer.kind === "stack") {
      data[place.floor][row] = 0
      const under = place.below === place.floor ? 0 : data[place.below][row] ?? 0
      data[place.y][row] = value === null ? null : under + value
    }
  }
  if (isShared) {
    data[0] = first
    for (let row = 0; row < first.length; row++) for (let k = 0; k < layers.length; k++) put(row, k, row)
  } else {
    for (let row = 0; ; row++) {
      let x = Infinity
      for (let k = 0; k < layers.length; k++) if (at[k] < layers[k].x.length) x = Math.min(x, layers[k].x[at[k]])
      if (x === Infinity) break
      data[0][row] = x
      for (let column = 1; column < columns; column++) data[column][row] = undefined
      for (let k = 0; k < layers.length; k++) {
        places[k].index[row] = -1
        if (at[k] < layers[k].x.length && layers[k].x[at[k]] === x) put(row, k, at[k]++)
      }
    }
  }
  if (!isShared) for (let column = 1; column < columns; column++) widenGaps(data[column])
  return { data, places, hasNegative, largest }
}

/** Rows of other layers within a gap belong to it: uPlot would draw through them. */
function widenGaps(column) {
  const widen = (row, before) => { if (column[row] === undefined && column[before] === null) column[row] = null }
  for (let row = 1; row < column.length; row++) widen(row, row - 1)
  for (let row = column.length - 2; row >= 0; row--) widen(row, row + 1)
}

/** The row with a value that is nearest to a row; null if the column has none nearby. */
export function nearest(x, column, row) {
  if (row === null || row === undefined) return null
  if (column[row] !== null && column[row] !== undefined) return row
  let [left, right] = [row - 1, row + 1]
  while (left >= 0 && (column[left] === null || column[left] === undefined)) left--
  while (right < x.length && (column[right] === null || column[right] === undefined)) right++
  if (left < 0) return right < x.length ? right : null
  if (right >= x.length) return left
  return x[row] - x[left] <= x[right] - x[row] ? left : right
}

/** A range with air above and below; from zero if zero is near anyway. */
export function yRange(low, high) {
  if (low === null || high === null || low === undefined) return [0, 1]
  if (low === high) {
    const pad = Math.abs(low) * 0.1 || 1
    return [low - pad, high + pad]
  }
  const pad = (high - low) * 0.06
  const bottom = low >= 0 && low < (high - low) * 0.4 ? 0 : low - pad
  const top = high <= 0 && -high < (high - low) * 0.15 ? 0 : high + pad
  return [bottom, top]
}
