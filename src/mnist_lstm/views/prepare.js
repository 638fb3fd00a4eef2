// Bring a drawing to the form of the images that the model was trained on, as `mnist-lstm predict`
// does it with a picture of the drawing (data/glyph.py, data/photo.py). A drawing is clean: there
// is no paper, light or dirt to be told from ink. `ink` is how much of it each pixel has, 0 to 1.

const STRONG = 0.35, EDGE = 0.1 // of the ink: what pieces are made of, and where a glyph ends
const SPECK = 0.05 // of the drawing's side: what is shorter is no glyph
const ABOVE = 0.3, BESIDE = 0.12 // of the glyph's longer side: its pieces are no further
const PIECE = 0.03, LARGE = 0.25 // of the glyph's area: what a piece has, and what is worth a word
const SLANT = 0.13 // pixels to the right for each pixel up, in the mean of MNIST's images

// A drawing of `side` x `side` pixels -> { pixels, doubt }: rows x columns numbers 0-255 and words
// on what may be wrong with it, or null if nothing is on it.
function prepare(ink, side, form) {
  const drawing = { height: side, width: side, ink }
  return form.box === null ? whole(drawing, form) : glyphOf(drawing, form)
}

function glyphOf(drawing, form) {
  const found = pieces(drawing)
  if (!found) return null
  let glyph = cut(found.glyph)
  if (form.centred === "mass") glyph = lessSlanted(glyph)
  const scale = Math.min(form.box / glyph.height, Math.min(form.box, form.columns) / glyph.width)
  glyph = scaled(glyph, scale)
  const most = clip(Math.max(...glyph.ink), 0, 1) // a thin line is pale when it is small
  const grey = glyph.ink.map((ink) => (255 * clip(ink, 0, 1)) / most)

  const acrossRows = new Float64Array(glyph.height), acrossColumns = new Float64Array(glyph.width)
  grey.forEach((level, at) => {
    acrossRows[Math.floor(at / glyph.width)] += level
    acrossColumns[at % glyph.width] += level
  })
  const top = place(acrossRows, form.rows, form.centred)
  const left = place(acrossColumns, form.columns, form.centred)
  return { pixels: pasted(form, 0, { ...glyph, ink: grey }, top, left), doubt: found.doubt }
}

// The first pixel of a glyph along one axis: its box is in the middle, or its centre of mass.
function place(profile, length, centred) {
  if (centred === "box") return Math.floor((length - profile.length) / 2)
  let sum = 0, moment = 0
  profile.forEach((ink, at) => { sum += ink; moment += ink * at })
  return clip(toEven(length / 2 - moment / sum), 0, length - profile.length)
}

// The whole drawing, black on white, scaled to fit. Some data sets are light on dark.
function whole(drawing, form) {
  if (!drawing.ink.some((ink) => ink > EDGE)) return null
  const { height, width } = drawing, wide = Math.floor(height / 28)
  const border = drawing.ink.filter((_, at) => {
    const y = Math.floor(at / width), x = at % width
    return Math.min(y, x, height - 1 - y, width - 1 - x) < wide
  }).sort()
  const middle = 255 * (1 - (border[border.length / 2 - 1] + border[border.length / 2]) / 2)
  const invert = form.light && middle > 127.5
  const grey = drawing.ink.map((ink) => (invert ? 255 * ink : 255 - 255 * ink))
  const small = scaled({ ...drawing, ink: grey }, Math.min(form.rows / height, form.columns / width))
  const top = Math.floor((form.rows - small.height) / 2), left = Math.floor((form.columns - small.width) / 2)
  return { pixels: pasted(form, invert ? 255 - middle : middle, small, top, left), doubt: "" }
}

function pasted(form, ground, picture, top, left) {
  const image = new Array(form.rows * form.columns).fill(toEven(ground))
  picture.ink.forEach((level, at) => {
    const y = top + Math.floor(at / picture.width), x = left + (at % picture.width)
    image[y * form.columns + x] = toEven(clip(level, 0, 255))
  })
  return image
}

// The pieces of the glyph: the largest thing, inside any frame, and what is near it.
function pieces({ height, width, ink }) {
  const { labels, things } = connected(ink.map((share) => share > STRONG), height, width)
  const large = things.filter((thing) => longer(thing) >= SPECK * Math.max(height, width))
  if (!large.length) return null
  const largest = (some) => some.reduce((a, b) => (b.area > a.area ? b : a))
  const inner = large.filter((thing) => !thing.border)
  let main = largest(inner.length ? inner : large)
  const frames = new Set()
  for (;;) {
    const held = things.length > 1 ? heldBy(main, labels, large, height, width) : []
    if (!held.length) break
    frames.add(main)
    main = largest(held)
  }
  const side = longer(main), near = new Set([main])
  for (const thing of things) {
    if (thing === main || frames.has(thing) || thing.area < PIECE * main.area || thing.area > main.area) continue
    if (thing.border && !main.border) continue
    if (thing.top <= main.top && thing.left <= main.left && thing.bottom >= main.bottom && thing.right >= main.right) {
      frames.add(thing)
      continue
    }
    const shared = Math.min(main.right, thing.right) - Math.max(main.left, thing.left)
    const above = shared > (thing.right - thing.left) / 2
    if (apart(main, thing, labels, width) <= (above ? ABOVE : BESIDE) * side) near.add(thing)
  }
  const others = large.filter((thing) =>
    !near.has(thing) && !frames.has(thing) && !thing.border && thing.area > LARGE * main.area)
  const doubt = others.length ? `${others.length + 1} large things are on it, and the largest is read` : ""

  const left = things.filter((thing) => !near.has(thing))
  const glyph = ink.slice()
  for (const thing of left) { // away with it, and with its soft edge
    for (const at of thing.pixels) {
      const y = Math.floor(at / width), x = at % width
      for (let v = Math.max(0, y - 2); v <= Math.min(height - 1, y + 2); v++) {
        for (let u = Math.max(0, x - 2); u <= Math.min(width - 1, x + 2); u++) {
          if (!near.has(things[labels[v * width + u] - 1])) glyph[v * width + u] = 0
        }
      }
    }
  }
  return { glyph: { height, width, ink: glyph }, doubt }
}

const longer = (thing) => Math.max(thing.bottom - thing.top, thing.right - thing.left)

// Number the connected things, diagonal neighbours included.
function connected(strong, height, width) {
  const labels = new Int32Array(height * width), things = []
  for (let start = 0; start < strong.length; start++) {
    if (!strong[start] || labels[start]) continue
    const pixels = [start], number = things.length + 1
    const thing = { number, pixels, top: height, left: width, bottom: 0, right: 0, border: false }
    labels[start] = number
    for (let next = 0; next < pixels.length; next++) {
      const y = Math.floor(pixels[next] / width), x = pixels[next] % width
      thing.top = Math.min(thing.top, y)
      thing.left = Math.min(thing.left, x)
      thing.bottom = Math.max(thing.bottom, y + 1)
      thing.right = Math.max(thing.right, x + 1)
      thing.border ||= y === 0 || x === 0 || y === height - 1 || x === width - 1
      for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) {
          const at = v * width + u
          if (strong[at] && !labels[at]) {
            labels[at] = number
            pixels.push(at)
          }
        }
      }
    }
    thing.area = pixels.length
    things.push(thing)
  }
  return { labels, things }
}

// The large things inside the holes of another one.
function heldBy(main, labels, large, height, width) {
  const outside = new Uint8Array(height * width), reached = []
  const reach = (at) => {
    if (outside[at] || labels[at] === main.number) return
    outside[at] = 1
    reached.push(at)
  }
  for (let y = 0; y < height; y++) { reach(y * width); reach(y * width + width - 1) }
  for (let x = 0; x < width; x++) { reach(x); reach((height - 1) * width + x) }
  for (let next = 0; next < reached.length; next++) {
    const at = reached[next], x = at % width
    if (x > 0) reach(at - 1)
    if (x < width - 1) reach(at + 1)
    if (at >= width) reach(at - width)
    if (at < (height - 1) * width) reach(at + width)
  }
  const inside = height * width - reached.length - main.area
  return large.filter((thing) =>
    thing !== main && thing.pixels.filter((at) => !outside[at]).length > PIECE * inside)
}

// The distance of two things, in pixels: that of their edges.
function apart(one, other, labels, width) {
  const [edge, others] = [one, other].map(({ pixels, number }) => pixels.filter((at) => {
    const x = at % width
    return x === 0 || x === width - 1 || [1, -1, width, -width].some((by) => labels[at + by] !== number)
  }))
  let least = Infinity
  for (const a of edge) {
    const y = Math.floor(a / width), x = a % width
    for (const b of others) {
      const down = Math.floor(b / width) - y, right = (b % width) - x
      least = Math.min(least, down * down + right * right)
    }
  }
  return Math.sqrt(least)
}

// Crop to the smallest box that holds all ink.
function cut({ height, width, ink }) {
  let top = height, left = width, bottom = 0, right = 0
  ink.forEach((share, at) => {
    if (share <= EDGE) return
    const y = Math.floor(at / width), x = at % width
    top = Math.min(top, y)
    bottom = Math.max(bottom, y + 1)
    left = Math.min(left, x)
    right = Math.max(right, x + 1)
  })
  const box = { height: bottom - top, width: right - left, ink: new Float32Array((bottom - top) * (right - left)) }
  for (let y = top; y < bottom; y++) {
    box.ink.set(ink.subarray(y * width + left, y * width + right), (y - top) * box.width)
  }
  return box
}

// Shear a glyph half of the way to the mean slant of MNIST's.
function lessSlanted({ height, width, ink }) {
  let mass = 0, sumY = 0, sumX = 0
  ink.forEach((share, at) => {
    mass += share
    sumY += share * Math.floor(at / width)
    sumX += share * (at % width)
  })
  let xy = 0, yy = 0
  ink.forEach((share, at) => {
    const y = Math.floor(at / width) - sumY / mass, x = (at % width) - sumX / mass
    xy += x * y * share
    yy += y * y * share
  })
  const shear = (-xy / Math.max(yy, 1e-9) - SLANT) / 2
  const wide = Math.floor(Math.abs(shear) * height) + 1, across = width + 2 * wide
  const sheared = new Float32Array(height * across)
  for (let y = 0; y < height; y++) {
    const pixel = (x) => { // of the glyph with `wide` empty columns on both sides
      const at = clip(x, 0, across - 1) - wide
      return at < 0 || at >= width ? 0 : ink[y * width + at]
    }
    for (let x = 0; x < across; x++) {
      const from = x + 0.5 - shear * (y + 0.5) + (shear * height) / 2
      if (from < 0 || from >= across) continue
      const at = Math.floor(from - 0.5), part = from - 0.5 - at
      const [a, b, c, d] = [pixel(at - 1), pixel(at), pixel(at + 1), pixel(at + 2)]
      const bicubic = b + part * (c - a + part * (2 * (a - b) + c - d + part * (b - a - c + d)))
      sheared[y * across + x] = clip(bicubic, 0, 1)
    }
  }
  return cut({ height, width: across, ink: sheared })
}

// Resize: the mean of pixels to shrink, bicubic interpolation to enlarge.
function scaled({ height, width, ink }, scale) {
  const high = Math.max(1, toEven(height * scale)), wide = Math.max(1, toEven(width * scale))
  if (high === height && wide === width) return { height, width, ink }
  const box = (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)
  const cubic = (x) => {
    x = Math.abs(x)
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
  }
  const [filter, reach] = scale < 1 ? [box, 0.5] : [cubic, 2]
  const horizontal = weightsOf(width, wide, filter, reach), vertical = weightsOf(height, high, filter, reach)
  const narrow = new Float32Array(height * wide), small = new Float32Array(high * wide)
  for (let y = 0; y < height; y++) {
    horizontal.forEach(({ first, weights }, x) => {
      let sum = 0
      weights.forEach((weight, k) => { sum += weight * ink[y * width + first + k] })
      narrow[y * wide + x] = sum
    })
  }
  vertical.forEach(({ first, weights }, y) => {
    for (let x = 0; x < wide; x++) {
      let sum = 0
      weights.forEach((weight, k) => { sum += weight * narrow[(first + k) * wide + x] })
      small[y * wide + x] = sum
    }
  })
  return { height: high, width: wide, ink: small }
}

// For each new pixel the old ones that it is made of, as the library Pillow takes them.
function weightsOf(before, after, filter, reach) {
  const ratio = before / after, wide = Math.max(ratio, 1)
  return Array.from({ length: after }, (_, at) => {
    const centre = (at + 0.5) * ratio
    const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5))
    const end = Math.min(before, Math.trunc(centre + reach * wide + 0.5))
    const weights = Array.from({ length: end - first }, (_, k) => filter((k + first - centre + 0.5) / wide))
    const sum = weights.reduce((a, b) => a + b)
    return { first, weights: weights.map((weight) => weight / sum) }
  })
}

const clip = (value, least, most) => Math.min(Math.max(value, least), most)

// Round to the nearest whole number, a half to the even one, as Python does.
function toEven(value) {
  const below = Math.floor(value), rest = value - below
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1
}
