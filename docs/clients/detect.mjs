// Run a detector that was exported with --nms, in Node or in a browser.
//   node detect.mjs MODEL.onnx IMAGE_SIZE IMAGE
// Prints class index, score, left, top, right, bottom in pixels of the image, best first.

const STRIDE = 32; // "stride" of the metadata

/** For each of `to` cells, the pixels of `from` that it is made of, with their shares: areas, or linear to enlarge. */
function taps(from, to) {
  return Array.from({ length: to }, (_, cell) => {
    if (to > from) {
      const place = Math.min(Math.max(((cell + 0.5) * from) / to - 0.5, 0), from - 1), first = Math.floor(place);
      return [[first, 1 - (place - first)], [Math.min(first + 1, from - 1), place - first]];
    }
    const start = (cell * from) / to, end = ((cell + 1) * from) / to, found = [];
    for (let i = Math.floor(start); i < Math.min(Math.ceil(end), from); i++)
      found.push([i, ((Math.min(end, i + 1) - Math.max(start, i)) * to) / from]);
    return found;
  });
}

/** Resize along one side: pixels are (rows, from, values) and become (rows, to, values). */
function resize(pixels, rows, from, to, values) {
  const out = new Float32Array(rows * to * values);
  taps(from, to).forEach((cells, cell) => {
    for (const [i, share] of cells)
      for (let row = 0; row < rows; row++)
        for (let k = 0; k < values; k++)
          out[(row * to + cell) * values + k] += share * pixels[(row * from + i) * values + k];
  });
  return out;
}

/**
 * Prepare an image: scaled to a long side of imageSize, top left, padded right and below with grey 114, RGB planes.
 * image has data (RGB or RGBA bytes), width, height and channels (3 or 4).
 */
export function prepare(image, imageSize) {
  const { data, width, height, channels } = image;
  const factor = imageSize / Math.max(width, height);
  const [newWidth, newHeight] = [width, height].map((side) => Math.max(1, Math.round(side * factor)));
  const narrow = resize(data, height, width, newWidth, channels);
  const scaled = resize(narrow, 1, height, newHeight, newWidth * channels);
  const [inputWidth, inputHeight] = [newWidth, newHeight].map((side) => Math.ceil(side / STRIDE) * STRIDE);
  const tensor = new Float32Array(3 * inputHeight * inputWidth).fill(114 / 255);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < newHeight; y++)
      for (let x = 0; x < newWidth; x++)
        tensor[(c * inputHeight + y) * inputWidth + x] = Math.round(scaled[(y * newWidth + x) * channels + c]) / 255;
  return { tensor, dims: [1, 3, inputHeight, inputWidth], scale: [newWidth / width, newHeight / height] };
}

/** Run the model; ort is onnxruntime-node or onnxruntime-web, session its InferenceSession. */
export async function detect(ort, session, image, imageSize, conf = 0.25) {
  const { tensor, dims, scale } = prepare(image, imageSize);
  const outputs = await session.run({ images: new ort.Tensor("float32", tensor, dims) });
  const [rows, counts] = session.outputNames.map((name) => outputs[name].data);
  const found = [];
  for (let i = 0; i < Number(counts[0]); i++) {
    const [left, top, right, bottom, score, label] = rows.slice(6 * i, 6 * i + 6);
    if (score <= conf) continue;
    const x = [left, right].map((value) => Math.min(Math.max(value / scale[0], 0), image.width));
    const y = [top, bottom].map((value) => Math.min(Math.max(value / scale[1], 0), image.height));
    found.push({ label, score, box: [x[0], y[0], x[1], y[1]] });
  }
  return found;
}

if (globalThis.process?.argv[1]?.endsWith("detect.mjs")) {
  const [model, imageSize, path] = process.argv.slice(2);
  const [ort, { default: sharp }] = await Promise.all([import("onnxruntime-node"), import("sharp")]);
  const pixels = sharp(path).rotate().removeAlpha().toColourspace("srgb").raw();
  const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
  const session = await ort.InferenceSession.create(model);
  for (const { label, score, box } of await detect(ort, session, { data, ...info }, Number(imageSize)))
    console.log(label, score.toFixed(3), ...box.map((value) => value.toFixed(1)));
}
