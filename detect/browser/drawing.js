// Images and boxes on canvases. Boxes are in pixels of the original image; a canvas has `scale` pixels for each of them.

const LINE = 2, FONT = 12, PAD = 4;  // CSS pixels
const MAX_SAVED = 8192;  // pixels of a saved picture's long side

/** Draw an image (with `width` and `height` in original pixels) as large as its frame allows; the scale that it has. */
export function showImage(canvas, image, size, roomWidth, roomHeight) {
  const fit = Math.min(roomWidth / size.width, roomHeight / size.height, 4);
  const width = Math.max(1, Math.round(size.width * fit)), height = Math.max(1, Math.round(size.height * fit));
  setSize(canvas, width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = fit < 2;  // enlarged pixels stay visible
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return fit;
}

/** Draw boxes, the best on top, over a canvas of `showImage`. */
export function showBoxes(canvas, below, detections, classes, fit, marked) {
  setSize(canvas, parseFloat(below.style.width), parseFloat(below.style.height));
  const density = canvas.width / parseFloat(canvas.style.width);
  drawBoxes(canvas.getContext("2d"), detections, classes, fit * density, density, marked);
}

/** The picture with its boxes as a PNG file. */
export async function savedPicture(image, size, detections, classes) {
  const scale = Math.min(1, MAX_SAVED / Math.max(size.width, size.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(size.width * scale));
  canvas.height = Math.max(1, Math.round(size.height * scale));
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  drawBoxes(context, detections, classes, scale, Math.max(1, (canvas.width + canvas.height) / 1600));
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function setSize(canvas, width, height) {
  const density = Math.min(window.devicePixelRatio || 1, 3);
  canvas.width = Math.round(width * density);  // clears it as well
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
}

function drawBoxes(context, detections, classes, scale, unit, marked = null) {
  context.font = `600 ${FONT * unit}px system-ui, "DejaVu Sans", sans-serif`;
  context.textBaseline = "middle";
  const ordered = [...detections].reverse();  // best first before
  for (const one of ordered) drawFrame(context, one, classes[one.label].color, scale, one === marked ? 2 * unit : unit);
  const taken = [];
  for (const one of detections) drawLabel(context, one, classes[one.label], scale, unit, taken);
}

function drawFrame(context, one, color, scale, unit) {
  const [left, top, right, bottom] = one.xyxy.map((value) => value * scale);
  const line = Math.min(LINE * unit, Math.max(1, Math.min(right - left, bottom - top) / 4));
  context.lineWidth = line + Math.min(unit, line);
  context.strokeStyle = "rgba(0, 0, 0, .4)";  // keeps a box visible on its own colour
  context.strokeRect(left + line / 2, top + line / 2, right - left - line, bottom - top - line);
  context.lineWidth = line;
  context.strokeStyle = color;
  context.strokeRect(left + line / 2, top + line / 2, right - left - line, bottom - top - line);
}

/** A label above its box, or inside where there is no room; left out where it would hide another one. */
function drawLabel(context, one, look, scale, unit, taken) {
  const text = `${look.shown} ${one.score.toFixed(2)}`;
  const width = context.measureText(text).width + 2 * PAD * unit, height = (FONT + 5) * unit;
  const left = Math.max(0, Math.min(one.xyxy[0] * scale, context.canvas.width - width));
  const above = one.xyxy[1] * scale - height;
  const top = above >= 0 ? above : Math.min(one.xyxy[1] * scale, context.canvas.height - height);
  const covers = (other) => left < other[0] + other[2] && other[0] < left + width && top < other[1] + other[3] && other[1] < top + height;
  if (taken.some(covers)) return;
  taken.push([left, top, width, height]);
  context.fillStyle = look.color;
  context.fillRect(left, top, width, height);
  context.fillStyle = isLight(look.color) ? "#000" : "#fff";
  context.fillText(text, left + PAD * unit, top + height / 2 + unit / 2);
}

function isLight(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140;  // luma of ITU-R BT.601
}
