// On a page that a server sent: a picture file goes to the server, which prepares it as
// `mnist-lstm predict` does. The page then reads the image that comes back.

const zone = element("label", "drop", "or drop a PNG or JPEG picture here, or choose one")
const chooser = element("input", "unseen"), problem = element("p", "problem")
chooser.id = "picture"
chooser.type = "file"
chooser.accept = "image/png,image/jpeg"
problem.setAttribute("role", "alert")
zone.append(chooser)
at("drawing").append(zone, problem)
invite(examples.length ? "choose a picture, or an image below" : "choose a picture")
at("alone").textContent = "What you draw stays in this page. A picture that you drop goes to the" +
  " server that sent the page, and nowhere else."

// Whether an image has the size that the page's model reads.
const fits = (image) => image?.length === model.rows &&
  image.every((line) => line.length === model.columns)

let request = new AbortController()
addEventListener("begin", () => { // what the server says does not matter any more
  request.abort()
  problem.textContent = ""
})

async function send(picture) {
  request.abort() // of the picture before
  const { signal } = request = new AbortController()
  stop()
  if (picture.type && !chooser.accept.split(",").includes(picture.type)) {
    const kind = /^image\/(?:x-)?([^+]+)/.exec(picture.type)?.[1].toUpperCase()
    problem.textContent = `This is ${kind ? `a ${kind}` : "no"} picture; the page takes PNG and JPEG.`
    return
  }
  problem.textContent = "Reading it …"
  let text, said = null
  try {
    const answer = await fetch("predict?image=pixels", {
      method: "POST",
      headers: { "Content-Type": picture.type || "image/png" }, // the server looks itself
      body: picture,
      signal,
    })
    text = `The server answers ${answer.status}, and not what the page needs.`
    said = await answer.json()
    text = answer.ok ? "" : `Refused: ${said.message}.`
    if (answer.ok && !fits(said.pixels)) text = "The server has another model now; load the page again."
  } catch {
    text ??= "The server does not answer."
  }
  if (signal.aborted) return
  problem.textContent = text
  if (text === "") read({ pixels: said.pixels.flat(), label: null, doubt: said.doubts.join("; ") }, null)
}

chooser.addEventListener("change", () => {
  if (chooser.files.length) send(chooser.files[0])
  chooser.value = "" // so that the same file can be chosen again
})
for (const kind of ["dragover", "dragleave", "drop"]) { // anywhere on the page
  addEventListener(kind, (event) => {
    event.preventDefault()
    zone.classList.toggle("over", kind === "dragover")
    if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0])
  })
}
