// The page of detect serve: the server's answers, tiles, and the cost slider.

import { drawCurve, quantity } from "./curve.js";
import { complain, find, Page, tableRow } from "./page.js";
import { decoded } from "./sources.js";

const LOWEST_SCORE = 0.05;  // asked for once; the slider filters what came
const settings = { network: null, tile: "" };  // of those of the slider; side of the tiles

const model = await loadModel();
const page = model && new Page(model, { predict, show, remark, refusal });
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
  if (settings.network) query.set("cost", settings.network.cost);
  if (settings.tile) query.set("tile", settings.tile);
  return `/api/predict?${query}`;
}

async function predict(source) {
  source.blob ??= await new Promise((done) => source.image.toBlob(done, "image/jpeg", 0.92));  // of the camera
  const result = await (await answer(predictAddress(), source.blob)).json();
  return { image: await imageOf(source, result), result };
}

/** The pixels of an image; the server's where the browser cannot read the file or turns it otherwise. */
async function imageOf(source, result) {
  const own = source.image ?? await decoded(source.blob);
  if (own && own.width === result.width && own.height === result.height) return own;
  if (source.image) return source.image;  // the server's picture, from before
  return decoded(await (await answer("/api/picture", source.blob)).blob());
}

function refusal(file) {
  if (file.size <= model.max_upload_bytes) return "";
  return `has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ${model.max_upload_bytes / 2 ** 20} MiB are accepted`;
}

// --------------------------------------------------------------------------------------------- rendering

function show(result) {
  find("time").textContent = `${result.ms.detect.toFixed(1)} ms`;
  find("macs").textContent = result.multiply_adds === null ? "unknown" : quantity(result.multiply_adds);
}

function remark(result) {
  return {
    inside: result.views > 1 ? `, ${result.views - 1} tiles and the whole` : "",
    behind: result.reached_limit ? "; the limit of detections is reached, there may be more" : "",
  };
}

// ---------------------------------------------------------------------------------------------- controls

function start() {
  const number = model.classes.length;
  find("facts").textContent = `${model.model} · ${number} ${number === 1 ? "class" : "classes"} · ${model.image_size} px · ${model.device}`;
  startTiles();
  if (model.costs) startCosts(model.costs);
}

function startTiles() {
  for (const factor of [1, 2, 4]) {
    const option = document.createElement("option");
    option.value = model.image_size * factor;
    option.textContent = `${model.image_size * factor} px`;
    find("tile").append(option);
  }
  find("tile").addEventListener("change", () => {
    settings.tile = find("tile").value;
    page.refresh();
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
    settings.network = one;
    slider.value = choices.indexOf(one);
    find("cost-value").textContent = percent(one.cost);
    slider.setAttribute("aria-valuetext", `${percent(one.cost)} of the full cost, ${costs.metric} ${one.metric.toFixed(3)}`);
    find("cost-note").textContent = `${costs.metric} ${one.metric.toFixed(3)} on ${costs.measured_on}`;
    rows.forEach((row, index) => row.classList.toggle("current", costs.networks[index] === one));
    present(one);
    page.refresh();
  };
  slider.addEventListener("input", () => choose(choices[slider.value]));
  choose(full);
  find("cost-section").hidden = false;
}

function percent(share) {
  return `${Number((100 * share).toPrecision(3))} %`;
}
