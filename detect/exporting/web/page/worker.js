// The model and the runtime. Messages in: open (class names, processor cores), detect (a file's blob, or a frame's bitmap).
// Messages out, { kind, content }: progress, ready, failed; found or refused for each detect.

import { Detector } from "./detector.js";

const RUNTIME = "./ort/ort.wasm.bundle.min.js", BINARY = "./ort/ort-wasm-simd-threaded.wasm", MODEL = "./model.onnx";
const LOWEST_SCORE = 0.05;  // the page's slider filters what came
const MAX_THREADS = 4;
const PNG = [0x89, 0x50, 0x4e, 0x47], PNG_DEPTH_AT = 24;
const canvas = new OffscreenCanvas(1, 1), context = canvas.getContext("2d", { willReadFrequently: true });
let opened = null;  // a promise of { ort, session, detector }

self.addEventListener("message", async ({ data }) => {
  if (data.kind === "open") {
    opened = open(data);
    opened.catch((error) => tell("failed", { line: error.message }));
    return;
  }
  const model = await opened.catch(() => null);
  if (!model) return;  // `failed` has said why
  try {
    const answer = await detect(model, data);
    tell("found", answer, [answer.bitmap]);
  } catch (error) {
    tell("refused", { line: error.message });
  }
});

function tell(kind, content, transferred = []) {
  self.postMessage({ kind, content }, transferred);
}

async function open({ names, cores }) {
  const content = await download(MODEL);
  let detector;
  try {
    detector = new Detector(content);
  } catch (error) {
    throw new Error(`model.onnx: ${error.message}`);
  }
  if (detector.names.join("\n") !== names.join("\n")) throw new Error("model.onnx: has other classes than model.json; export the folder again");
  const binary = await download(BINARY);
  const ort = await import(RUNTIME).catch((error) => { throw new Error(`ort/: the runtime cannot be loaded: ${error.message}`); });
  tell("progress", { line: "Starting the model …" });
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = binary;  // so that the type that the server gives it does not matter
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MAX_THREADS, cores) : 1;
  const session = await ort.InferenceSession.create(content, { executionProviders: ["wasm"] }).catch((error) => {
    throw new Error(`model.onnx: the runtime cannot start it: ${error.message}`);
  });
  const { imageSize, precision, isSuppressed } = detector, threads = ort.env.wasm.numThreads;
  tell("ready", { imageSize, precision, threads, limits: isSuppressed ? detector.output : null });
  return { ort, session, detector };
}

/** A file of the folder, as bytes; its progress is told. */
async function download(address) {
  const name = address.replace("./", "");
  const response = await fetch(address).catch(() => { throw new Error(`${name}: the server does not answer`); });
  if (!response.ok) throw new Error(`${name}: the server answered ${response.status}; is the whole folder there?`);
  const parts = [], reader = response.body.getReader();
  let size = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    size += part.value.length;
    tell("progress", { line: `Loading ${name}: ${(size / 2 ** 20).toFixed(1)} MiB` });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function detect({ ort, session, detector }, { blob, bitmap: frame }) {
  const start = performance.now();
  const bitmap = frame ?? await decoded(blob, detector);
  const image = pixels(bitmap), decode = performance.now() - start;
  const { detections, ms } = await detector.detect(ort, session, image, { conf: LOWEST_SCORE });
  const { width, height } = image;
  return { bitmap, width, height, detections, reached_limit: detections.length >= detector.maxDetections, ms: { decode, ...ms } };
}

/** The upright image of a file, its values as they are stored. */
async function decoded(blob, detector) {
  const start = new Uint8Array(await blob.slice(0, PNG_DEPTH_AT + 1).arrayBuffer());
  if (detector.preprocessing.value_range && PNG.every((byte, at) => start[at] === byte) && start[PNG_DEPTH_AT] === 16)
    throw new Error("has 16 bits for each value, which browsers cut to 8; detect predict reads it as the model was trained");
  try {
    return await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("is not an image that this browser reads");
  }
}

function pixels(bitmap) {
  const { width, height } = bitmap;
  canvas.width = width;  // clears it as well
  canvas.height = height;
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  return { data, width, height, channels: 4 };
}
