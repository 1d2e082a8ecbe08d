// What both pages show: an image with its boxes, the classes, a table, files to save; one prediction at a time. Names come from strangers: only textContent.

import { savedPicture, showBoxes, showImage } from "./drawing.js";
import { Camera, listenForFiles } from "./sources.js";

const MANY_CLASSES = 20;  // of more, only those found are listed
const PAUSE_MS = 700;  // after an error of the camera's loop

export const find = (id) => document.getElementById(id);
export const camera = new Camera();

/**
 * The page of a detector.
 *
 * `model` has `file` and `classes` (name, shown, color). `predict(source)` takes { name, blob, image }, a file or a camera's frame, and gives
 * { image, result }: what to draw, and an object with width, height, `detections` (label, score, xyxy in pixels of the image) and
 * whatever `show(result)` and `remark(result)` need: the page's own figures, and { inside, behind } of the summary's line.
 * `refusal(file)` gives the reason not to take a file, or "".
 */
export class Page {
  shown = null;  // { name, blob, image, result }: what is on the canvas
  #next = null;  // { name, blob }: a file that replaces it if it can be read
  #minScore = 0.25;
  #hidden = new Set();  // labels of classes
  #marked = null;  // the detection under the pointer
  #scale = 1;
  #isAsking = false;  // a prediction is on its way
  #isStale = false;  // something has changed since
  #summaryTimer = 0;

  constructor(model, { predict, show, remark, refusal = () => "" }) {
    Object.assign(this, { model, predict, show, remark, refusal });
    this.classRows = model.classes.map((look, label) => this.#makeClassRow(look, label));
    document.title = `${model.file} – detect`;
    find("file").textContent = model.file;
    find("classes").append(...this.classRows);
    listenForFiles(find("chooser"), find("view"), (file) => this.open(file));
    find("camera").addEventListener("click", () => this.#toggleCamera());
    find("camera").disabled = !Camera.isAllowed;
    if (!Camera.isAllowed) find("camera").title = "Browsers allow the camera on this machine (localhost) or over https only";
    find("save-picture").addEventListener("click", () => this.#savePicture());
    find("save-json").addEventListener("click", () => this.#saveJson());
    find("list").addEventListener("toggle", () => this.render());
    find("all-classes").addEventListener("click", () => this.#toggleAll());
    find("score").addEventListener("input", () => this.#changeScore());
    new ResizeObserver(() => this.layOut()).observe(find("view"));
    this.#changeScore();
  }

  open(file) {
    if (camera.isOn) this.#toggleCamera();
    const reason = this.refusal(file);
    if (reason) return complain(`${file.name}: ${reason}`);
    this.#next = { name: file.name || "pasted image", blob: file };
    return this.refresh();
  }

  /** Predict again with the present image and settings; while a prediction is on its way, once more when it is back. */
  async refresh() {
    this.#isStale = true;
    if (this.#isAsking) return;
    this.#isAsking = true;
    while (this.#isStale) {
      this.#isStale = camera.isOn;
      await this.#predictOnce();
    }
    this.#isAsking = false;
  }

  async #predictOnce() {
    const source = camera.isOn ? { name: "camera", image: camera.frame() } : this.#next ?? this.shown;
    if (!source) return;
    find("view").classList.toggle("busy", !camera.isOn);
    const start = performance.now();
    try {
      const { image, result } = await this.predict(source);
      if (source !== this.#next && source !== this.shown && !camera.isOn) return;  // the camera was stopped meanwhile
      this.shown = { name: source.name, blob: source.blob, image, result };
      complain("");
      this.layOut();
      find("rate").textContent = `${(1000 / (performance.now() - start)).toFixed(1)} fps`;
    } catch (error) {
      complain(source.name === "camera" ? error.message : `${source.name}: ${error.message.replace(/^the image: /, "")}`);
      if (camera.isOn) await new Promise((done) => setTimeout(done, PAUSE_MS));
    } finally {
      if (source === this.#next) this.#next = null;
      find("view").classList.remove("busy");
    }
  }

  // ------------------------------------------------------------------------------------------- rendering

  get #wanted() {
    const all = this.shown?.result.detections ?? [];
    return all.filter((one) => one.score >= this.#minScore && !this.#hidden.has(one.label));
  }

  /** Fit the image into its place, and everything that depends on it. */
  layOut() {
    if (!this.shown) return;
    const view = find("view");
    view.dataset.state = "image";
    const { image, result } = this.shown;
    this.#scale = showImage(find("image"), image, result, view.clientWidth, Math.max(240, window.innerHeight * 0.66));
    this.render();
  }

  render() {
    if (!this.shown) return;
    const found = this.#wanted;
    this.#drawBoxes(found);
    find("objects").textContent = found.length;
    this.show(this.shown.result);
    find("save-picture").disabled = find("save-json").disabled = false;
    this.#countClasses();
    if (find("list").open) this.#listObjects(found);
    this.#summarize(found);
  }

  #drawBoxes(found) {
    showBoxes(find("boxes"), find("image"), found, this.model.classes, this.#scale, this.#marked);
  }

  #countClasses() {
    const counts = countByLabel(this.shown.result.detections.filter((one) => one.score >= this.#minScore));
    this.classRows.forEach((row, label) => {
      const count = counts.get(label) ?? 0;
      row.querySelector(".count").textContent = count;
      row.classList.toggle("absent", count === 0);
      row.hidden = this.classRows.length > MANY_CLASSES && count === 0 && !this.#hidden.has(label);
    });
  }

  #summarize(found) {
    clearTimeout(this.#summaryTimer);  // a screen reader hears the last of many changes
    this.#summaryTimer = setTimeout(() => {
      const { name, result } = this.shown, { inside = "", behind = "" } = this.remark(result);
      const counts = [...countByLabel(found)].sort((a, b) => b[1] - a[1]);
      const parts = counts.map(([label, count]) => `${count} ${this.model.classes[label].shown}`);
      find("summary").textContent = `${name} (${result.width} × ${result.height}${inside}): ${parts.join(", ") || "nothing found"}${behind}`;
    }, camera.isOn ? 0 : 250);
  }

  #listObjects(found) {
    find("rows").replaceChildren(...found.map((one) => {
      const [left, top, right, bottom] = one.xyxy;
      const texts = [this.model.classes[one.label].shown, one.score.toFixed(2), `${left.toFixed(0)}, ${top.toFixed(0)}`, `${(right - left).toFixed(0)} × ${(bottom - top).toFixed(0)}`];
      const row = tableRow(texts);
      row.addEventListener("pointerenter", () => this.#mark(one));
      row.addEventListener("pointerleave", () => this.#mark(null));
      return row;
    }));
  }

  #mark(one) {
    this.#marked = one;
    this.#drawBoxes(this.#wanted);
  }

  // -------------------------------------------------------------------------------------------- controls

  async #toggleCamera() {
    if (camera.isOn) camera.stop();
    else {
      try {
        await camera.start();
      } catch (error) {
        complain(`The camera cannot be used: ${error.message || error.name}`);
        camera.stop();
      }
    }
    find("camera").setAttribute("aria-pressed", camera.isOn);
    find("camera").textContent = camera.isOn ? "Stop camera" : "Camera";
    find("rate-figure").hidden = !camera.isOn;
    find("summary").setAttribute("aria-live", camera.isOn ? "off" : "polite");
    if (camera.isOn) this.refresh();
  }

  #changeScore() {
    this.#minScore = find("score").value / 100;
    find("score-value").textContent = this.#minScore.toFixed(2);
    this.render();
  }

  #makeClassRow(look, label) {
    const row = document.createElement("li"), box = document.createElement("input"), name = document.createElement("bdi");
    const text = document.createElement("label"), count = document.createElement("span");
    const chip = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [key, value] of Object.entries({ cx: 6, cy: 6, r: 6, fill: look.color })) circle.setAttribute(key, value);
    chip.setAttribute("aria-hidden", "true");
    chip.setAttribute("viewBox", "0 0 12 12");
    chip.append(circle);
    box.type = "checkbox";
    box.checked = true;
    box.addEventListener("change", () => {
      this.#hidden[box.checked ? "delete" : "add"](label);
      this.#nameToggle();
      this.render();
    });
    name.textContent = look.shown;
    count.className = "count";
    text.append(box, chip, name, count);
    row.append(text);
    row.hidden = this.model.classes.length > MANY_CLASSES;
    return row;
  }

  #toggleAll() {
    const shows = this.#hidden.size > 0;
    this.#hidden = new Set(shows ? [] : this.model.classes.keys());
    for (const row of this.classRows) row.querySelector("input").checked = shows;
    this.#nameToggle();
    this.render();
  }

  #nameToggle() {
    find("all-classes").textContent = this.#hidden.size ? "all" : "none";
  }

  // ----------------------------------------------------------------------------------------------- files

  async #savePicture() {
    const { name, image, result } = this.shown;
    save(await savedPicture(image, result, this.#wanted, this.model.classes), `${stem(name)}-detections.png`);
  }

  #saveJson() {
    const { name, result } = this.shown;
    const content = { file_name: name, weights: this.model.file, min_score: this.#minScore, ...result, detections: this.#wanted };
    save(new Blob([`${JSON.stringify(content, null, 1)}\n`], { type: "application/json" }), `${stem(name)}-detections.json`);
  }
}

/** Show a problem in one line; none for an empty one. */
export function complain(line) {
  find("alert").hidden = !line;
  if (find("alert").textContent !== line) find("alert").textContent = line;
}

export function tableRow(texts) {
  const row = document.createElement("tr");
  for (const text of texts) row.insertCell().textContent = text;
  return row;
}

function countByLabel(detections) {
  const counts = new Map();
  for (const one of detections) counts.set(one.label, (counts.get(one.label) ?? 0) + 1);
  return counts;
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || "image";
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
