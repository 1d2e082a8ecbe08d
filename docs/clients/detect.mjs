// Run an exported detector in Node; detector.mjs lies beside this file.
//   node detect.mjs MODEL.onnx IMAGE...
// Prints for each object image, class, score, left, top, right, bottom in pixels of the image, best first.

import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import sharp from "sharp";
import { Detector } from "./detector.mjs";

const [model, ...paths] = process.argv.slice(2);
const content = await readFile(model), detector = new Detector(content);
const session = await ort.InferenceSession.create(content);
for (const path of paths) {
  const pixels = sharp(path, { ignoreIcc: true }).rotate().removeAlpha().toColourspace("srgb").raw();  // upright by EXIF; values as stored
  const { data, info } = await pixels.toBuffer({ resolveWithObject: true });
  const { detections } = await detector.detect(ort, session, { data, ...info });
  for (const { label, score, xyxy } of detections)
    console.log(path, detector.names[label], score.toFixed(3), ...xyxy.map((value) => value.toFixed(1)));
}
