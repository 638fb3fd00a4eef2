// The page: what is drawn goes through prepare() and readImage(), and comes out as pictures.
// Everything that comes from the model's data set, such as names of classes, is only ever text.

const opened = performance.now()
const about = JSON.parse(document.getElementById("data").textContent)
const model = unpack(about.model)
const { classes, form } = about
const at = (id) => document.getElementById(id)
const still = matchMedia("(prefers-reduced-motion: reduce)")
const PACE = 1700 // milliseconds in which an image is read, row by row
const PAUSE = 450 // milliseconds after a stroke, in which the next may begin
const BRUSH = 44 // of the 560 pixels of the canvas

const canvas = at("canvas"), paper = canvas.getContext("2d", { willReadFrequently: true })
let strokes = [] // each a list of points
let drawn = false // whether the image comes from strokes
let shown = null // { pixels, beliefs, read, doubt, label }
let row = model.rows // how many rows have been read
let playing = 0, waiting = 0, filling = 0, measured = 0

// --- reading

// Read an image, and show the belief after all rows.
function show(pixels, { label = null, doubt = "" } = {}) {
  const before = performance.now()
  const { read, beliefs } = readImage(model, pixels)
  shown = { pixels, read, label, doubt, beliefs: new Array(model.rows).fill(null) }
  if (model.inOrder) shown.beliefs = beliefs
  else shown.beliefs[model.rows - 1] = beliefs[0]
  measured = performance.now() - before
  at("speed").textContent = `It read this image in ${measured.toFixed(0)} ms.`
  goTo(model.rows)
}

// The belief after some rows. A model that reads in another order than rows from the top reads the
// image anew, with the rows below blank.
function beliefAfter(count) {
  shown.beliefs[count - 1] ??= readImage(model, firstRows(model, shown.pixels, count)).beliefs[0]
  return shown.beliefs[count - 1]
}

function statesAfter(count) {
  if (model.inOrder || count === model.rows) return shown.read
  if (shown.kept?.count !== count) {
    shown.kept = { count, read: readImage(model, firstRows(model, shown.pixels, count)).read }
  }
  return shown.kept.read
}

// What was drawn goes the way that pictures go in `predict`.
function inkOf() {
  const { data } = paper.getImageData(0, 0, canvas.width, canvas.height)
  const ink = new Float32Array(canvas.width * canvas.height)
  for (let pixel = 0; pixel < ink.length; pixel++) ink[pixel] = data[4 * pixel + 3] / 255
  return ink
}

function readDrawing() {
  const prepared = prepare(inkOf(), canvas.width, form)
  if (prepared) show(prepared.pixels, prepared)
}

// Show row after row, as long as nothing else happens; to those who want no motion, only the end.
function play() {
  stop()
  if (!shown) return
  const image = shown
  let start = 0
  const tick = () => {
    if (shown !== image) return
    const count = Math.ceil(((performance.now() - start) / PACE) * model.rows)
    goTo(clip(count, 1, model.rows), count >= model.rows)
    playing = count < model.rows ? requestAnimationFrame(tick) : 0
  }
  const animate = () => {
    start = performance.now()
    return still.matches ? goTo(model.rows, true) : tick()
  }
  const compute = () => { // a model that reads in another order needs its time first
    const missing = image.beliefs.findIndex((one) => !one)
    if (shown !== image) return
    if (missing < 0) return animate()
    beliefAfter(missing + 1)
    filling = setTimeout(compute)
  }
  if (model.inOrder) animate()
  else compute()
}

function stop() {
  cancelAnimationFrame(playing)
  clearTimeout(waiting)
  clearTimeout(filling)
  playing = 0
}

// --- what is seen

function goTo(count, say = false) {
  row = count
  at("row").value = count
  at("count").textContent = `row ${count} of ${model.rows}`
  const beliefs = shown ? beliefAfter(count) : classes.map(() => 0)
  const best = beliefs.indexOf(Math.max(...beliefs))
  at("class").textContent = shown ? classes[best] : "?"
  at("class").classList.toggle("long", shown !== null && classes[best].length > 3)
  verdict(best, beliefs[best])
  for (const [label, bar] of bars.entries()) {
    bar.item.classList.toggle("best", shown !== null && label === best)
    bar.fill.style.transform = `scaleX(${beliefs[label]})`
    bar.share.textContent = shown ? percent(beliefs[label]) : ""
  }
  const said = shown ? `${classes[best]}, ${at("words").textContent}` : ""
  at("row").setAttribute("aria-valuetext", said || `${count} of ${model.rows} rows`)
  if (say || !shown) at("live").textContent = said
  drawImage()
  drawBeliefs()
  drawMaps()
}

// With one decimal, where it tells something, and never 100 %.
function percent(share) {
  if (share > 0.9995) return ">99.9%"
  return `${(100 * share).toFixed(share > 0.0995 && share < 0.9895 ? 0 : 1)}%`
}

// What to do on the empty paper: draw, or choose what there is to choose.
let invitation = ""
function invite(choose) {
  invitation = choose ? `Draw something, or ${choose}.` : "Draw something."
  const keys = choose ? ` With a keyboard, ${choose}.` : ""
  canvas.setAttribute("aria-label", `Drawing area for mouse, finger or pen.${keys}`)
  if (!shown) goTo(model.rows)
}

function verdict(best, share) {
  const words = at("words")
  words.replaceChildren()
  if (!shown) return words.append(invitation)
  const whole = row === model.rows
  words.append(`${percent(share)} sure ${whole ? "after all rows" : `after ${row} of ${model.rows} rows`}.`)
  if (whole && shown.label !== null) {
    if (shown.label === best) words.append(" That is right.")
    else {
      const wrong = document.createElement("strong")
      wrong.textContent = ` It is labelled ${classes[shown.label]}.`
      words.append(wrong)
    }
  }
  if (whole && shown.doubt) words.append(` ${shown.doubt}.`)
}

// A colour of the page, as numbers.
let colours = {}
function readColours() {
  const style = getComputedStyle(document.documentElement)
  for (const name of ["ink", "main", "plus", "minus"]) {
    const hex = parseInt(style.getPropertyValue(`--${name}`).trim().slice(1), 16)
    colours[name] = [hex >> 16, (hex >> 8) & 255, hex & 255]
  }
}

// Paint a grid: `shade(line, column)` is a number, from -1 to 1, and its colour.
function paint(canvas, lines, columns, shade) {
  canvas.width = columns
  canvas.height = lines
  const picture = new ImageData(columns, lines)
  for (let line = 0, at = 0; line < lines; line++) {
    for (let column = 0; column < columns; column++, at += 4) {
      const [value, colour] = shade(line, column)
      picture.data.set(colour, at)
      picture.data[at + 3] = 255 * Math.min(1, Math.abs(value))
    }
  }
  canvas.getContext("2d").putImageData(picture, 0, 0)
}

const dim = (line) => (line < row ? 1 : 0.22) // what it has not read yet

// Mark the row that is being read: two thin lines at its edges, on canvases of few pixels.
function drawImage() {
  paint(at("seen"), model.rows, model.columns, (line, column) => {
    const pixel = shown ? shown.pixels[line * model.columns + column] / 255 : 0
    return line === row - 1 && shown
      ? [Math.max(0.25, pixel), pixel > 0.35 ? colours.ink : colours.main]
      : [pixel * dim(line), colours.ink]
  })
}

function drawBeliefs() {
  paint(at("beliefs"), model.rows, classes.length, (line, label) => {
    const beliefs = shown?.beliefs[line]
    return [beliefs ? beliefs[label] * dim(line) : 0, colours.main]
  })
}

const OF_LSTM = {
  f: ["forget gate", "keeps the memory"],
  i: ["input gate", "lets in what is new"],
  g: ["candidate", "what is new"],
  c: ["cell", "the memory"],
  o: ["output gate", "shows the memory"],
  h: ["output", "what is said"],
}
const OF_GRU = {
  z: ["update gate", "keeps the memory"],
  r: ["reset gate", "lets the memory into what is new"],
  n: ["candidate", "what is new"],
  h: ["output", "the memory, which is said"],
}
const GATES = { lstm: OF_LSTM, gru: OF_GRU, rnn: { h: ["output", "the memory, which is said"] } }[model.cell]
const KIND = {
  lstm: ["an", "LSTM", "long short-term memory"],
  gru: ["a", "GRU", "gated recurrent unit"],
  rnn: ["an", "RNN", "recurrent neural network"],
}[model.cell]

function drawMaps() {
  const [stack, height, direction] = at("layer").value.split(" ").map(Number)
  const states = shown && statesAfter(row)[stack].layers[height][direction]
  const units = model.stacks[stack].layers[height][direction].units
  const lines = model.stacks[stack].reads === "rows" ? model.rows : model.columns
  const last = direction === 1 ? 0 : lines - 1 // where it says its last word
  for (const [name, map] of Object.entries(maps)) {
    const signed = "gchn".includes(name)
    const scale = name === "c" ? 2 : 1 // a cell can hold more than 1
    paint(map.canvas, lines, units, (line, unit) => {
      const value = states ? states[line][name][unit] / scale : 0
      const colour = signed ? (value < 0 ? colours.minus : colours.plus) : colours.main
      return [model.inOrder ? value * dim(line) : value, colour]
    })
    const now = states && states[model.inOrder ? row - 1 : last][name]
    const size = now && now.reduce((sum, value) => sum + Math.abs(value), 0) / units
    map.mean.textContent = now ? `mean ${signed ? "size " : ""}${size.toFixed(2)}` : ""
  }
}

// --- drawing

function pointOf(event) {
  const box = canvas.getBoundingClientRect()
  return [
    ((event.clientX - box.left) / box.width) * canvas.width,
    ((event.clientY - box.top) / box.height) * canvas.height,
  ]
}

function drawStroke(points) {
  paper.lineWidth = BRUSH
  paper.lineCap = paper.lineJoin = "round"
  paper.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink")
  paper.beginPath()
  paper.moveTo(...points[0])
  for (let at = 1; at < points.length - 1; at++) { // a smooth line through the middles
    const [x, y] = points[at], [u, v] = points[at + 1]
    paper.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2)
  }
  paper.lineTo(...points[points.length - 1])
  paper.stroke()
}

function redraw() {
  paper.clearRect(0, 0, canvas.width, canvas.height)
  for (const stroke of strokes) drawStroke(stroke)
  at("hint").hidden = drawn || shown !== null
  const focus = document.activeElement
  at("undo").disabled = at("save").disabled = !strokes.length
  if (focus?.disabled) at("clear").focus({ preventScroll: true }) // it would be lost
}

let last = 0 // when it was read last
function whileDrawing() {
  redraw()
  if (performance.now() - last < 2 * measured + 90) return // the pen comes first
  last = performance.now()
  readDrawing()
}

// Somebody begins something else, by hand.
const begin = () => dispatchEvent(new Event("begin"))

let pen = null // the pointer that draws
function clear() {
  stop()
  begin()
  pen = null
  strokes = []
  drawn = false
  shown = null
  press(null)
  redraw()
  goTo(model.rows)
}

canvas.addEventListener("pointerdown", (event) => {
  if (pen !== null || event.button !== 0) return
  event.preventDefault()
  stop()
  if (!drawn) clear()
  begin()
  drawn = true
  pen = event.pointerId
  canvas.setPointerCapture(pen)
  strokes.push([pointOf(event)])
  redraw()
})
canvas.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pen) return
  const events = event.getCoalescedEvents?.() ?? []
  for (const one of events.length ? events : [event]) strokes.at(-1).push(pointOf(one))
  whileDrawing()
})
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (event.pointerId !== pen) return
    pen = null
    redraw()
    readDrawing()
    waiting = setTimeout(play, PAUSE)
  })
}

at("clear").addEventListener("click", clear)
at("undo").addEventListener("click", undo)
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z" &&
    strokes.length) undo()
})
function undo() {
  stop()
  begin()
  pen = null // a stroke that is being drawn ends here
  strokes.pop()
  if (!strokes.length) return clear()
  redraw()
  readDrawing()
}

// A PNG of the drawing, black on white, as `mnist-lstm predict` takes it.
function picture() {
  const copy = document.createElement("canvas")
  copy.width = canvas.width
  copy.height = canvas.height
  const ink = inkOf(), image = new ImageData(copy.width, copy.height)
  ink.forEach((share, at) => {
    const grey = 255 - Math.round(255 * share)
    image.data.set([grey, grey, grey, 255], 4 * at)
  })
  copy.getContext("2d").putImageData(image, 0, 0)
  return copy.toDataURL("image/png")
}
at("save").addEventListener("click", () => {
  const link = document.createElement("a")
  link.href = picture()
  link.download = "drawing.png"
  link.click()
})

// --- the slider, and touching a row

at("row").max = model.rows
at("row").addEventListener("input", () => {
  stop()
  goTo(Number(at("row").value)) // the slider says it
})
at("play").addEventListener("click", play)
for (const id of ["seen", "beliefs"]) {
  const touch = (event) => {
    if (!event.buttons) return
    stop()
    const box = at(id).getBoundingClientRect()
    goTo(clip(Math.ceil(((event.clientY - box.top) / box.height) * model.rows), 1, model.rows))
  }
  at(id).addEventListener("pointerdown", touch)
  at(id).addEventListener("pointermove", touch)
}

// --- what is there from the beginning

function element(name, className, text = "") {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

const bars = classes.map((name) => {
  const item = element("li", "")
  const track = element("span", "track"), fill = element("div", "fill"), share = element("span", "share")
  track.append(fill)
  item.append(element("span", "name", name), track, share)
  at("bars").append(item)
  return { item, fill, share }
})
if (Math.max(...classes.map((name) => name.length)) < 3 && classes.length < 20) {
  at("labels").append(...classes.map((name) => element("span", "", name)))
} else at("labels").textContent = "the classes, in the order of the bars"
for (const id of ["seen", "beliefs"]) at(id).style.aspectRatio = `${model.columns} / ${model.rows}`
at("size").textContent = `${model.columns} × ${model.rows} pixels`
at("code").textContent = at("lstm").textContent.trim()
const [article, kind, long] = KIND
document.title = document.title.replace("an LSTM", `${article} ${kind}`)
at("article").textContent = article
at("kind").textContent = kind
at("kind").title = long
const number = { 1: "one", 3: "three", 5: "five", 7: "seven" }[model.window]
at("reads").textContent = model.stacks.map(({ reads }) =>
  `${number} ${model.window === 1 ? reads.slice(0, -1) : reads}`).join(" and ")
at("source").textContent = `The model: ${about.source}.`
if (!model.inOrder) {
  at("note").append(" This model does not read from the top alone: after each row you see what it",
    " makes of the image with the rows below left blank.")
}

const maps = {}
for (const [name, [title, meaning]] of Object.entries(GATES)) {
  const figure = element("figure", "map"), caption = element("figcaption", "")
  const text = element("span", ""), mean = element("span", "mean")
  text.append(element("b", "", `${name}, ${title}`), `: ${meaning}`)
  caption.append(text, mean)
  const canvas = document.createElement("canvas")
  canvas.setAttribute("role", "img")
  canvas.setAttribute("aria-label", `The ${title} of each unit at each row`)
  figure.append(caption, canvas)
  at("maps").append(figure)
  maps[name] = { canvas, mean }
}

model.stacks.forEach((stack, number) => {
  stack.layers.forEach((directions, height) => {
    directions.forEach((_, direction) => {
      const names = [`${height + 1}`]
      if (model.stacks.length > 1) names.push(`reads ${stack.reads}`)
      if (directions.length > 1) names.push(direction ? "from the end" : "from the start")
      const option = element("option", "", names.join(", "))
      option.value = `${number} ${height} ${direction}`
      at("layer").append(option)
    })
  })
})
function nameAxes() {
  const [stack, height, direction] = at("layer").value.split(" ").map(Number)
  const { reads, layers } = model.stacks[stack]
  const lines = reads === "rows" ? model.rows : model.columns
  at("axes").textContent = `across: ${layers[height][direction].units} units; down: ${lines} ${reads}`
}
at("layer").addEventListener("change", () => {
  nameAxes()
  drawMaps()
})

function press(button) {
  for (const one of document.querySelectorAll(".strip button")) one.setAttribute("aria-pressed", one === button)
}

// Show the image that is read on the paper, as large as it fits.
function drawOnPaper() {
  const image = element("canvas", "")
  paint(image, model.rows, model.columns, (line, column) =>
    [shown.pixels[line * model.columns + column] / 255, colours.ink])
  const scale = Math.min(canvas.width / model.columns, canvas.height / model.rows)
  const width = scale * model.columns, height = scale * model.rows
  paper.clearRect(0, 0, canvas.width, canvas.height)
  paper.imageSmoothingEnabled = false
  paper.globalAlpha = 0.85
  paper.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height)
  paper.globalAlpha = 1
}

function read(example, button) {
  clear()
  press(button)
  show(Array.from(example.pixels), example)
  drawOnPaper()
  at("hint").hidden = true
  play()
}

function offer(example, strip) {
  const button = element("button", ""), image = document.createElement("canvas")
  button.type = "button"
  button.append(image)
  const text = element("span", "", classes[example.label])
  if (example.answer !== example.label) {
    const mistake = element("small", "", `read as ${classes[example.answer]}, `)
    mistake.append(element("span", "", percent(example.probability)))
    text.append(mistake)
  }
  button.append(text)
  button.setAttribute("aria-label", example.answer === example.label
    ? `Test image ${example.number}: ${classes[example.label]}`
    : `Test image ${example.number}: ${classes[example.label]}, read as ${classes[example.answer]}`)
  button.addEventListener("click", () => read(example, button))
  strip.append(button)
  const draw = () => paint(image, model.rows, model.columns, (line, column) =>
    [example.pixels[line * model.columns + column] / 255, colours.ink])
  draw()
  return { button, draw }
}

readColours()
nameAxes()
const examples = about.examples.map((one) => ({ ...one, pixels: bytesOf(one.pixels) }))
const offered = examples.map((one) => offer(one, at(one.mistake ? "mistakes" : "first")))
at("examples").hidden = !examples.length
at("wrong").hidden = !examples.some((one) => one.mistake)
if (about.test) {
  const { images, right } = about.test
  at("tested").textContent =
    `Of ${images.toLocaleString("en")} test images, which it never saw in training, it reads ` +
    `${((100 * right) / images).toFixed(2)}% right.`
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readColours()
  for (const one of offered) one.draw()
  if (drawn) redraw()
  else if (shown) drawOnPaper()
  goTo(row)
})
invite(examples.length ? "choose an image below" : "")
if (examples.length) read(examples[0], offered[0].button)
document.documentElement.dataset.ready = (performance.now() - opened).toFixed(0)
