// The page of a folder that `detect export --format web` wrote: the model works in worker.js, so that the page stays responsive.

import { complain, find, Page } from "./page.js";

const STAGES = ["decode", "letterbox", "network", "suppression"];
const worker = new Worker("./worker.js", { type: "module" });
let waiting = null;  // { resolve, reject } of the prediction in progress
let failure = "";  // the reason why there is no model

worker.addEventListener("message", ({ data }) => ANSWERS[data.kind](data.content));
worker.addEventListener("error", ({ message }) => ANSWERS.failed({ line: `worker.js does not run: ${message || "it cannot be loaded, or the browser is too old"}` }));

const ANSWERS = {
  progress({ line }) {
    find("status").textContent = line;
  },
  ready({ imageSize, precision, threads, limits }) {
    find("status").textContent = "";
    const number = model.classes.length;
    find("facts").textContent = `${model.model} · ${number} ${number === 1 ? "class" : "classes"} · ${imageSize} px · ${precision} · ${threads} ${threads === 1 ? "thread" : "threads"}`;
    if (limits) startScoreAt(limits.score_threshold);
  },
  failed({ line }) {
    failure = line;
    find("status").textContent = "";
    if (waiting) waiting.reject(new Error(line));
    else complain(line);
  },
  found(answer) {
    waiting.resolve(answer);
  },
  refused({ line }) {
    waiting.reject(new Error(line));
  },
};

const model = await loadModel();
if (model) {
  new Page(model, { predict, show, remark });
  worker.postMessage({ kind: "open", names: model.classes.map((one) => one.name), cores: navigator.hardwareConcurrency });
}

async function loadModel() {
  const problem = (reason) => `model.json: ${reason}; is the whole folder on the server?`;
  try {
    const response = await fetch("./model.json");
    if (response.ok) return await response.json();
    complain(problem(`the server answered ${response.status}`));
  } catch (error) {
    complain(problem(error.message));
  }
  return null;
}

async function predict({ blob, image }) {
  if (failure) throw new Error(failure);
  const bitmap = blob ? null : await createImageBitmap(image);  // of the camera
  const answer = new Promise((resolve, reject) => { waiting = { resolve, reject }; });
  worker.postMessage({ kind: "detect", blob, bitmap }, bitmap ? [bitmap] : []);
  try {
    const { bitmap: shown, ...result } = await answer;
    return { image: shown, result };
  } finally {
    waiting = null;
  }
}

function show({ ms }) {
  for (const stage of STAGES) find(stage).textContent = `${ms[stage].toFixed(1)} ms`;
}

function remark({ reached_limit: isFull }) {
  return { behind: isFull ? "; the limit of detections is reached, there may be more" : "" };
}

/** A file with suppression inside has nothing below its own threshold. */
function startScoreAt(threshold) {
  find("score").min = Math.ceil(threshold * 100);
  find("score-note").textContent = `The file holds nothing below ${threshold}.`;
  find("score-note").hidden = false;
  find("score").dispatchEvent(new Event("input"));
}
