// An LSTM, written out. It reads an image one row of pixels at a time, as one reads a page: it
// never sees the whole. What it needs of the rows above, it must remember.
//
// Each layer is a crowd of units. A unit has two numbers that it carries from row to row:
//
//   c, its cell: a memory that only it can see, and
//   h, its output: what it says about the memory, to all units and to the layer above.
//
// At each row, a unit forms four weighted sums of the row x and of what all units of its layer said
// at the row before, h. Three of the sums become gates, numbers between 0 (shut) and 1 (open):
//
//   f = sigmoid(sum)   forget gate: how much of its memory it keeps
//   i = sigmoid(sum)   input gate: how much of what is new it lets in
//   o = sigmoid(sum)   output gate: how much of its memory it shows
//   g = tanh(sum)      what is new: the candidate, between -1 and 1
//
//   c = f * c + i * g        keep some of the old, add some of the new
//   h = o * tanh(c)          say some of it
//
// This is all. The line for c is why an LSTM can learn: with f near 1 and i near 0 a memory passes
// through many rows unchanged, and so does the error that trains it. (Hochreiter and Schmidhuber
// 1997; the forget gate is of Gers, Schmidhuber and Cummins 2000.)

const sigmoid = (sum) => 1 / (1 + Math.exp(-sum))

// Read one row `x` with one layer. `before` has c and h of each unit after the row above. The sums of
// all units are in one list: first those for i, then those for f, g and o.
function lstm(layer, x, { c, h }) {
  const units = layer.units, now = empty("ifgoch", units)
  const ofRow = sums(layer.ofRow, x, layer.bias), ofOutputs = sums(layer.ofOutputs, h)
  for (let unit = 0; unit < units; unit++) {
    const sum = (gate) => ofRow[gate * units + unit] + ofOutputs[gate * units + unit]
    now.i[unit] = sigmoid(sum(0))
    now.f[unit] = sigmoid(sum(1))
    now.g[unit] = Math.tanh(sum(2))
    now.o[unit] = sigmoid(sum(3))
    now.c[unit] = now.f[unit] * c[unit] + now.i[unit] * now.g[unit]
    now.h[unit] = now.o[unit] * Math.tanh(now.c[unit])
  }
  return now
}

// Two relatives. A GRU has no cell: h is its memory, too. z says how much of it stays, and r how much
// of it the candidate n is told. (Cho et al. 2014.)
function gru(layer, x, { h }) {
  const units = layer.units, now = empty("rznh", units)
  const ofRow = sums(layer.ofRow, x, layer.bias)
  const ofOutputs = sums(layer.ofOutputs, h, layer.biasOfOutputs)
  for (let unit = 0; unit < units; unit++) {
    now.r[unit] = sigmoid(ofRow[unit] + ofOutputs[unit])
    now.z[unit] = sigmoid(ofRow[units + unit] + ofOutputs[units + unit])
    now.n[unit] = Math.tanh(ofRow[2 * units + unit] + now.r[unit] * ofOutputs[2 * units + unit])
    now.h[unit] = (1 - now.z[unit]) * now.n[unit] + now.z[unit] * h[unit]
  }
  return now
}

// And what both grew from: it has no gates. (Elman 1990.)
function rnn(layer, x, { h }) {
  const now = empty("h", layer.units)
  const ofRow = sums(layer.ofRow, x, layer.bias), ofOutputs = sums(layer.ofOutputs, h)
  now.h.forEach((_, unit) => { now.h[unit] = Math.tanh(ofRow[unit] + ofOutputs[unit]) })
  return now
}

const CELLS = { lstm, gru, rnn }
const empty = (names, units) =>
  Object.fromEntries(Array.from(names, (name) => [name, new Float32Array(units)]))

// Weighted sums of values: one for each line of `weights`, added to its bias. Four lines at once are
// faster than one: each value is fetched once for all of them, and no addition waits for another.
function sums(weights, values, bias) {
  const wide = values.length, found = bias ? bias.slice() : new Float32Array(weights.length / wide)
  const fours = found.length & ~3
  for (let line = 0; line < fours; line += 4) {
    const one = line * wide, two = one + wide, three = two + wide, four = three + wide
    let a = 0, b = 0, c = 0, d = 0
    for (let at = 0; at < wide; at++) {
      const value = values[at]
      a += weights[one + at] * value
      b += weights[two + at] * value
      c += weights[three + at] * value
      d += weights[four + at] * value
    }
    found[line] += a
    found[line + 1] += b
    found[line + 2] += c
    found[line + 3] += d
  }
  for (let line = fours; line < found.length; line++) {
    let sum = 0
    for (let at = 0; at < wide; at++) sum += weights[line * wide + at] * values[at]
    found[line] += sum
  }
  return found
}

// Read all rows with one layer, from the first to the last, or the other way round. Returns what
// happened in its units at each row, in the order of the rows.
function readWith(layer, rows, backward) {
  const states = new Array(rows.length), step = CELLS[layer.cell]
  let state = empty("ch", layer.units) // it knows nothing
  for (let at = 0; at < rows.length; at++) {
    const row = backward ? rows.length - 1 - at : at
    state = states[row] = step(layer, rows[row], state)
  }
  return states
}

// Read an image with all layers. A layer reads what the layer below says at each row; the first one
// reads pixels. A model in two directions has two layers at each height, one of which reads from
// the last row to the first, and joins what they say. Returns the states of each layer, and what
// the top says at each row.
function readStack(stack, rows) {
  const layers = []
  for (const height of stack) {
    const read = height.map((layer, direction) => readWith(layer, rows, direction === 1))
    layers.push(read)
    rows = rows.map((_, row) => joined(read.map((states) => states[row].h)))
  }
  return { layers, said: rows }
}

// From what the top layers say to a belief: one score a class, and softmax, which makes the scores
// positive and their sum 1.
function belief(head, said) {
  const scores = Array.from(sums(head.weight, said, head.bias))
  const highest = Math.max(...scores)
  const parts = scores.map((score) => Math.exp(score - highest))
  const whole = parts.reduce((sum, part) => sum + part)
  return parts.map((part) => part / whole)
}

// What the last layer gets, of the first `count` rows or of all: what was said last, or the mean. The units
// that read backward say their last word at the first row.
function pooled(model, read, count) {
  return joined(read.map(({ layers, said }) => {
    const rows = count ?? said.length
    if (model.pooling === "mean") {
      return said[0].map((_, at) => {
        let sum = 0
        for (let row = 0; row < rows; row++) sum += said[row][at]
        return sum / rows
      })
    }
    const top = layers[layers.length - 1]
    return joined(top.map((states, direction) => states[direction === 1 ? 0 : rows - 1].h))
  }))
}

// Let the model read an image: `pixels` 0-255, row after row. A model may read the rows, the columns,
// or both, each with layers of its own. Returns what the layers did, and the beliefs: after each
// row, if the model reads rows from the top, and otherwise only after all of the image.
function readImage(model, pixels) {
  const { rows, columns } = model
  const ink = Float32Array.from(pixels, (pixel) => pixel / 255)
  const lines = {
    rows: Array.from({ length: rows }, (_, row) => ink.slice(row * columns, (row + 1) * columns)),
    columns: Array.from({ length: columns }, (_, column) =>
      Float32Array.from({ length: rows }, (_, row) => ink[row * columns + column])),
  }
  const read = model.stacks.map((stack) =>
    readStack(stack.layers, windows(lines[stack.reads], model.window)))
  const answer = (count) => belief(model.head, pooled(model, read, count))
  if (!model.inOrder) return { read, beliefs: [answer()] }
  return { read, beliefs: lines.rows.map((_, row) => answer(row + 1)) }
}

// What the lowest layers get at each line: a window of lines, with that line in the middle. Most
// models have windows of one line. Lines outside of the image are blank.
function windows(lines, size) {
  if (size === 1) return lines
  const blank = new Float32Array(lines[0].length)
  return lines.map((_, middle) => joined(Array.from({ length: size }, (_, at) =>
    lines[middle - (size - 1) / 2 + at] ?? blank)))
}

// The image as it is after `count` rows: what comes below is blank.
function firstRows(model, pixels, count) {
  return pixels.map((pixel, at) => (at < count * model.columns ? pixel : 0))
}

function joined(parts) {
  if (parts.length === 1) return parts[0]
  const whole = new Float32Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

// The weights come as one long list of numbers, in base64: of each layer those of the row, those of h
// and the bias, each for all gates; at the end those of the last layer.
function unpack(about) {
  const numbers = (about.bits === 16 ? fromHalves : fromFloats)(bytesOf(about.weights))
  let at = 0
  const take = (count) => numbers.subarray(at, (at += count))
  const gates = { lstm: 4, gru: 3, rnn: 1 }[about.cell]
  const stacks = about.stacks.map(({ reads, layers }) => ({
    reads,
    layers: layers.map((directions) => directions.map(({ inputs, units }) => ({
      cell: about.cell,
      units,
      ofRow: take(gates * units * inputs),
      ofOutputs: take(gates * units * units),
      bias: take(gates * units),
      biasOfOutputs: about.cell === "gru" ? take(gates * units) : null,
    }))),
  }))
  const head = { weight: take(about.head.classes * about.head.inputs), bias: take(about.head.classes) }
  const readsRows = stacks.length === 1 && stacks[0].reads === "rows"
  const inOrder = readsRows && about.directions === 1 && about.window === 1
  const { cell, rows, columns, pooling, window } = about
  return { cell, rows, columns, pooling, window, stacks, head, inOrder }
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64) // in newer browsers, in less time
  const letters = atob(base64), bytes = new Uint8Array(letters.length)
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at)
  return bytes
}

function fromFloats(bytes) { // little-endian, whatever the machine
  if (new Uint8Array(Float32Array.of(1).buffer)[3] === 63) return new Float32Array(bytes.buffer)
  const view = new DataView(bytes.buffer), numbers = new Float32Array(bytes.length / 4)
  for (let at = 0; at < numbers.length; at++) numbers[at] = view.getFloat32(4 * at, true)
  return numbers
}

function fromHalves(bytes) { // a sign, 5 bits of exponent, 10 of fraction
  const view = new DataView(bytes.buffer), numbers = new Float32Array(bytes.length / 2)
  for (let at = 0; at < numbers.length; at++) {
    const half = view.getUint16(2 * at, true), exponent = (half >> 10) & 31, fraction = half & 1023
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24
    numbers[at] = half >> 15 ? -size : size
  }
  return numbers
}
