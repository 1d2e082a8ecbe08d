// The page: what is shown, one request at a time, and the controls. Names come from strangers: only textContent.

import { drawCurve, quantity } from "/curve.js";
import { savedPicture, showBoxes, showImage } from "/drawing.js";
import { Camera, decoded, listenForFiles } from "/sources.js";

const LOWEST_SCORE = 0.05;  // asked for once; the slider filters what came
const MANY_CLASSES = 20;  // of more, only those found are listed
const PAUSE_MS = 700;  // after an error of the camera's loop
const find = (id) => document.getElementById(id);
const camera = new Camera();
const state = {
  shown: null,  // { name, blob, image, result }: what is on the canvas
  next: null,  // { name, blob }: a file that replaces it if the server reads it
  minScore: 0.25,
  hidden: new Set(),  // labels of classes
  network: null,  // of those of the slider
  tile: "",
  marked: null,  // the detection under the pointer
  scale: 1,
};
let isAsking = false, isStale = false;  // a request is on its way; something has changed since

const model = await loadModel();
const classRows = model ? model.classes.map(makeClassRow) : [];
if (model) start();

// ------------------------------------------------------------------------------------------------ server

async function loadModel() {
  try {
    return await (await answer("/api/model")).json();
  } catch (error) {
    complain(error.message);
    return null;
  }
}

/** The server's answer; an error with its line. */
async function answer(address, blob = null) {
  const request = blob && { method: "POST", body: blob, headers: { "content-type": "application/octet-stream" } };
  let response;
  try {
    response = await fetch(address, request ?? {});
  } catch {
    throw new Error("The server does not answer. Is detect serve still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: `The server answered ${response.status}.` }));
  throw new Error(error);
}

function predictAddress() {
  const query = new URLSearchParams({ conf: LOWEST_SCORE });
  if (state.network) query.set("cost", state.network.cost);
  if (state.tile) query.set("tile", state.tile);
  return `/api/predict?${query}`;
}

/** Ask again with the present image and settings; while a request is on its way, once more when it is back. */
async function refresh() {
  isStale = true;
  if (isAsking) return;
  isAsking = true;
  while (isStale) {
    isStale = camera.isOn;
    await predictOnce();
  }
  isAsking = false;
}

async function predictOnce() {
  const source = camera.isOn ? { name: "camera", ...(await camera.frame()) } : state.next ?? state.shown;
  if (!source) return;
  find("view").classList.toggle("busy", !camera.isOn);
  const start = performance.now();
  try {
    const result = await (await answer(predictAddress(), source.blob)).json();
    const image = await imageOf(source, result);
    if (source !== state.next && source !== state.shown && !camera.isOn) return;  // the camera was stopped meanwhile
    state.shown = { name: source.name, blob: source.blob, image, result };
    complain("");
    layOut();
    find("rate").textContent = `${(1000 / (performance.now() - start)).toFixed(1)} fps`;
  } catch (error) {
    complain(source.name === "camera" ? error.message : `${source.name}: ${error.message.replace(/^the image: /, "")}`);
    if (camera.isOn) await new Promise((done) => setTimeout(done, PAUSE_MS));
  } finally {
    if (source === state.next) state.next = null;
    find("view").classList.remove("busy");
  }
}

/** The pixels of an image; the server's where the browser cannot read the file or turns it otherwise. */
async function imageOf(source, result) {
  const own = source.image ?? await decoded(source.blob);
  if (own && own.width === result.width && own.height === result.height) return own;
  if (source === state.shown) return source.image;
  return decoded(await (await answer("/api/picture", source.blob)).blob());
}

// --------------------------------------------------------------------------------------------- rendering

function wanted() {
  const all = state.shown?.result.detections ?? [];
  return all.filter((one) => one.score >= state.minScore && !state.hidden.has(one.label));
}

/** Fit the image into its place, and everything that depends on it. */
function layOut() {
  if (!state.shown) return;
  const view = find("view");
  view.dataset.state = "image";
  const { image, result } = state.shown;
  state.scale = showImage(find("image"), image, result, view.clientWidth, Math.max(240, window.innerHeight * 0.66));
  render();
}

function render() {
  if (!state.shown) return;
  const { result } = state.shown, found = wanted();
  showBoxes(find("boxes"), find("image"), found, model.classes, state.scale, state.marked);
  find("objects").textContent = found.length;
  find("time").textContent = `${result.ms.detect.toFixed(1)} ms`;
  find("macs").textContent = result.multiply_adds === null ? "unknown" : quantity(result.multiply_adds);
  find("save-picture").disabled = find("save-json").disabled = false;
  countClasses(found);
  if (find("list").open) listObjects(found);
  summarize(found);
}

function countClasses(found) {
  const above = state.shown.result.detections.filter((one) => one.score >= state.minScore);
  const counts = new Map();
  for (const one of above) counts.set(one.label, (counts.get(one.label) ?? 0) + 1);
  classRows.forEach((row, label) => {
    const count = counts.get(label) ?? 0;
    row.querySelector(".count").textContent = count;
    row.classList.toggle("absent", count === 0);
    row.hidden = model.classes.length > MANY_CLASSES && count === 0 && !state.hidden.has(label);
  });
}

let summaryTimer = 0;
function summarize(found) {
  clearTimeout(summaryTimer);  // a screen reader hears the last of many changes
  summaryTimer = setTimeout(() => {
    const { name, result } = state.shown;
    const counts = new Map();
    for (const one of found) counts.set(one.label, (counts.get(one.label) ?? 0) + 1);
    const parts = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${count} ${model.classes[label].shown}`);
    const tiles = result.views > 1 ? `, ${result.views - 1} tiles and the whole` : "";
    const more = result.reached_limit ? "; the limit of detections is reached, there may be more" : "";
    find("summary").textContent = `${name} (${result.width} × ${result.height}${tiles}): ${parts.join(", ") || "nothing found"}${more}`;
  }, camera.isOn ? 0 : 250);
}

function listObjects(found) {
  find("rows").replaceChildren(...found.map((one) => {
    const [left, top, right, bottom] = one.xyxy;
    const texts = [model.classes[one.label].shown, one.score.toFixed(2), `${left.toFixed(0)}, ${top.toFixed(0)}`, `${(right - left).toFixed(0)} × ${(bottom - top).toFixed(0)}`];
    const row = tableRow(texts);
    row.addEventListener("pointerenter", () => mark(one));
    row.addEventListener("pointerleave", () => mark(null));
    return row;
  }));
}

function mark(one) {
  state.marked = one;
  showBoxes(find("boxes"), find("image"), wanted(), model.classes, state.scale, one);
}

function tableRow(texts) {
  const row = document.createElement("tr");
  for (const text of texts) row.insertCell().textContent = text;
  return row;
}

function complain(line) {
  find("alert").hidden = !line;
  if (find("alert").textContent !== line) find("alert").textContent = line;
}

// ---------------------------------------------------------------------------------------------- controls

function start() {
  document.title = `${model.file} – detect`;
  find("file").textContent = model.file;
  const number = model.classes.length;
  find("facts").textContent = `${model.model} · ${number} ${number === 1 ? "class" : "classes"} · ${model.image_size} px · ${model.device}`;
  find("classes").append(...classRows);
  listenForFiles(find("chooser"), find("view"), openFile);
  find("camera").addEventListener("click", toggleCamera);
  find("camera").disabled = !Camera.isAllowed;
  if (!Camera.isAllowed) find("camera").title = "Browsers allow the camera on this machine (localhost) or over https only";
  find("save-picture").addEventListener("click", savePicture);
  find("save-json").addEventListener("click", saveJson);
  find("list").addEventListener("toggle", render);
  find("all-classes").addEventListener("click", toggleAll);
  new ResizeObserver(layOut).observe(find("view"));
  startScore();
  startTiles();
  if (model.costs) startCosts(model.costs);
}

function openFile(file) {
  if (camera.isOn) toggleCamera();
  if (file.size > model.max_upload_bytes) {
    complain(`${file.name}: has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${model.max_upload_bytes / 2 ** 20} MiB are accepted`);
    return;
  }
  state.next = { name: file.name || "pasted image", blob: file };
  refresh();
}

async function toggleCamera() {
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
  if (camera.isOn) refresh();
}

function startScore() {
  const slider = find("score");
  const change = () => {
    state.minScore = slider.value / 100;
    find("score-value").textContent = state.minScore.toFixed(2);
    render();
  };
  slider.addEventListener("input", change);
  change();
}

function startTiles() {
  for (const factor of [1, 2, 4]) {
    const option = document.createElement("option");
    option.value = model.image_size * factor;
    option.textContent = `${model.image_size * factor} px`;
    find("tile").append(option);
  }
  find("tile").addEventListener("change", () => {
    state.tile = find("tile").value;
    refresh();
  });
}

function startCosts(costs) {
  // The full network is always a choice, even where a cheaper one measured better.
  const full = costs.networks.find((one) => one.name === "plain") ?? costs.networks.at(-1);
  const choices = [...costs.networks.filter((one) => one.is_best && one.cost < 1), full];
  const slider = find("cost"), present = drawCurve(find("curve"), costs, (one) => choose(choices.includes(one) ? one : full));
  find("metric-head").textContent = costs.metric;
  const rows = costs.networks.map((one) => tableRow([one.name, percent(one.cost), one.metric.toFixed(3), one.ms.toFixed(1)]));
  find("cost-rows").append(...rows);
  slider.max = choices.length - 1;
  const choose = (one) => {
    state.network = one;
    slider.value = choices.indexOf(one);
    find("cost-value").textContent = percent(one.cost);
    slider.setAttribute("aria-valuetext", `${percent(one.cost)} of the full cost, ${costs.metric} ${one.metric.toFixed(3)}`);
    find("cost-note").textContent = `${costs.metric} ${one.metric.toFixed(3)} on ${costs.measured_on}`;
    rows.forEach((row, index) => row.classList.toggle("current", costs.networks[index] === one));
    present(one);
    refresh();
  };
  slider.addEventListener("input", () => choose(choices[slider.value]));
  choose(full);
  find("cost-section").hidden = false;
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}

function makeClassRow(look, label) {
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
    state.hidden[box.checked ? "delete" : "add"](label);
    nameToggle();
    render();
  });
  name.textContent = look.shown;
  count.className = "count";
  text.append(box, chip, name, count);
  row.append(text);
  row.hidden = model.classes.length > MANY_CLASSES;
  return row;
}

function toggleAll() {
  const shows = state.hidden.size > 0;
  state.hidden = new Set(shows ? [] : model.classes.keys());
  for (const row of classRows) row.querySelector("input").checked = shows;
  nameToggle();
  render();
}

function nameToggle() {
  find("all-classes").textContent = state.hidden.size ? "all" : "none";
}

// ------------------------------------------------------------------------------------------------- files

async function savePicture() {
  const { name, image, result } = state.shown;
  save(await savedPicture(image, result, wanted(), model.classes), `${stem(name)}-detections.png`);
}

function saveJson() {
  const { name, result } = state.shown;
  const content = { file_name: name, weights: model.file, min_score: state.minScore, ...result, detections: wanted() };
  save(new Blob([`${JSON.stringify(content, null, 1)}\n`], { type: "application/json" }), `${stem(name)}-detections.json`);
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
