// A detector that `detect export` wrote, for browsers and Node: all that its metadata say about an image on its way to boxes.
// Letters: A anchors of a level, K classes. Boxes are left, top, right, bottom.

const FORMAT = "detect-onnx-1";
const METADATA_PROPS = 14, KEY = 1, VALUE = 2;  // fields of ONNX's ModelProto and StringStringEntryProto
const MAX_DETECTIONS = 300;  // of an image, as in detect predict
const MAX_CANDIDATES = 8192;  // of an image, as in detect/boxes/array_nms.py
const UNIT = 2048;  // OpenCV's linear weights are whole numbers of this
const LEAST_SHARE = 1e-3;  // OpenCV leaves out smaller shares of a pixel

export class Detector {
  /** Read the metadata of an ONNX file's content, a Uint8Array; an Error with one line if it is no such detector. */
  constructor(content) {
    const metadata = readMetadata(content);
    if (metadata.format !== FORMAT) throw new Error(`is not a file that detect export wrote (format ${FORMAT})`);
    if (metadata.task !== "detection") throw new Error("is not a detector");
    this.names = JSON.parse(metadata.names);
    this.imageSize = Number(metadata.image_size);
    this.precision = metadata.precision;
    this.preprocessing = JSON.parse(metadata.preprocessing);
    this.output = JSON.parse(metadata.output);
    this.maxDetections = this.output.max_detections ?? MAX_DETECTIONS;
    this.isSuppressed = this.output.non_maximum_suppression === "applied";
    for (const kind of ["interpolation_smaller", "interpolation_larger"])
      if (!(this.preprocessing[kind] in RESIZE)) throw new Error(`${kind}: ${this.preprocessing[kind]} is unknown here`);
  }

  /**
   * Detect the objects of an image; ort is onnxruntime-web or onnxruntime-node, session its InferenceSession.
   * image has data (RGB or RGBA bytes), width, height and channels (3 or 4). Of options, iou is for files without suppression inside. Returns
   * detections, best first, in pixels of the image, and the milliseconds of each stage.
   */
  async detect(ort, session, image, options) {
    const start = performance.now();
    const { tensor, dims, scale } = this.prepare(image);
    const wasPrepared = performance.now();
    const results = await session.run({ images: new ort.Tensor("float32", tensor, dims) });
    const outputs = session.outputNames.map((name) => results[name]);
    const wasRun = performance.now();
    const detections = this.found(outputs, dims, scale, image, options);
    const end = performance.now();
    return { detections, ms: { letterbox: wasPrepared - start, network: wasRun - wasPrepared, suppression: end - wasRun } };
  }

  /** The network's input of an image: scaled to the long side, top left, padded right and below, planes of RGB in [0, 1]. */
  prepare({ data, width, height, channels }) {
    const factor = this.imageSize / Math.max(width, height);
    const [newWidth, newHeight] = [width, height].map((side) => Math.max(1, roundHalfToEven(side * factor)));
    const how = newWidth * newHeight < width * height ? "smaller" : "larger";
    const resize = newWidth === width && newHeight === height ? copied : RESIZE[this.preprocessing[`interpolation_${how}`]];
    const bytes = resize(data, width, height, channels, newWidth, newHeight);
    const { pad_to_square_of: side, pad_to_multiple_of: multiple, pad_value: pad } = this.preprocessing;
    const [inputWidth, inputHeight] = [newWidth, newHeight].map((edge) => side ?? Math.ceil(edge / multiple) * multiple);
    const tensor = new Float32Array(3 * inputHeight * inputWidth).fill(pad / 255);
    for (let channel = 0; channel < 3; channel++)
      for (let row = 0; row < newHeight; row++) {
        let to = (channel * inputHeight + row) * inputWidth;
        for (let from = 3 * row * newWidth + channel; from < 3 * (row + 1) * newWidth; from += 3) tensor[to++] = bytes[from] / 255;
      }
    return { tensor, dims: [1, 3, inputHeight, inputWidth], scale: [newWidth / width, newHeight / height] };
  }

  /** Detections with a score above conf, best first, of the network's outputs (each with data and dims). */
  found(outputs, inputDims, scale, image, { conf = 0.25, iou = 0.6 } = {}) {
    const best = this.isSuppressed ? rowsAbove(outputs, conf) : suppress(this.predictions(outputs, inputDims), 5 + this.names.length, conf, iou, this.maxDetections);
    const inImage = ({ label, score, xyxy }) => {
      const limits = [image.width, image.height];
      return { label, score, xyxy: xyxy.map((value, at) => Math.min(Math.max(value / scale[at % 2], 0), limits[at % 2])) };
    };
    return best.map(inImage).filter(({ xyxy }) => xyxy[2] > xyxy[0] && xyxy[3] > xyxy[1]);
  }

  /** Rows of centre x, y, width, height, objectness, K probabilities; the maps of a raw file are decoded here. */
  predictions(outputs, inputDims) {
    if (!this.output.levels) return outputs[0].data;
    const parts = this.output.levels.map((level, at) => decode(outputs[at], level, inputDims, this.output));
    const rows = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let end = 0;
    for (const part of parts) {
      rows.set(part, end);
      end += part.length;
    }
    return rows;
  }
}

// ---------------------------------------------------------------------------------------------- metadata

/** The metadata of an ONNX file's content, by key, read from its protocol buffer; the network is skipped. */
export function readMetadata(content) {
  const metadata = {};
  for (const [number, entry] of fields(content)) {
    if (number !== METADATA_PROPS) continue;
    const texts = new Map([...fields(entry)].map(([part, bytes]) => [part, new TextDecoder().decode(bytes)]));
    metadata[texts.get(KEY)] = texts.get(VALUE) ?? "";
  }
  return metadata;
}

/** Number and bytes of each field of a message that has a length; others are skipped. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0, factor = 1, byte;
    do {
      if (at >= bytes.length) throw new Error("is not an ONNX file, or damaged");
      byte = bytes[at++];
      value += (byte & 127) * factor;  // no shifts: lengths may pass 2 ** 31
      factor *= 128;
    } while (byte & 128);
    return value;
  };
  while (at < bytes.length) {
    const tag = varint(), kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      if (at + length > bytes.length) throw new Error("is not an ONNX file, or damaged");
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("is not an ONNX file, or damaged");
  }
}

// ------------------------------------------------------------------------------------------------ pixels

/** Python's round, and OpenCV's: halves go to the even neighbour. */
export function roundHalfToEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}

const RESIZE = { INTER_AREA: resizeArea, INTER_LINEAR: resizeLinear };

function copied(data, width, height, channels) {
  const bytes = new Uint8Array(3 * width * height);
  for (let pixel = 0; pixel < width * height; pixel++)
    for (let channel = 0; channel < 3; channel++) bytes[3 * pixel + channel] = data[channels * pixel + channel];
  return bytes;
}

/** Mean over the area of each new pixel, rounded as OpenCV does: of 2 x 2 pixels halves go up, otherwise to the even level. */
function resizeArea(data, width, height, channels, newWidth, newHeight) {
  const bytes = new Uint8Array(3 * newWidth * newHeight);
  const isWhole = width % newWidth === 0 && height % newHeight === 0;  // sums of whole pixels are exact
  const isQuarter = isWhole && width === 2 * newWidth && height === 2 * newHeight;
  const columns = areaShares(width, newWidth, isWhole), rows = areaShares(height, newHeight, isWhole);
  const unit = isWhole ? Math.fround(1 / ((width / newWidth) * (height / newHeight))) : 1;
  const narrow = new Float32Array(3 * newWidth), sum = new Float32Array(3 * newWidth);
  for (let row = 0; row < newHeight; row++) {
    sum.fill(0);
    for (let part = rows.starts[row]; part < rows.starts[row + 1]; part++) {
      addColumns(narrow.fill(0), data, rows.cells[part] * width * channels, channels, columns);
      const share = rows.shares[part];
      for (let at = 0; at < sum.length; at++) sum[at] += Math.fround(share * narrow[at]);
    }
    const start = row * sum.length;
    for (let at = 0; at < sum.length; at++) bytes[start + at] = isQuarter ? (sum[at] + 2) >> 2 : roundHalfToEven(Math.fround(sum[at] * unit));
  }
  return bytes;
}

/** Add the columns of a row of pixels, which begins at `start`, to the narrower row. */
function addColumns(narrow, data, start, channels, { starts, cells, shares }) {
  for (let column = 0, at = 0; column < starts.length - 1; column++, at += 3) {
    let red = 0, green = 0, blue = 0;
    for (let part = starts[column]; part < starts[column + 1]; part++) {
      const from = start + cells[part] * channels, share = shares[part];
      red = Math.fround(red + Math.fround(data[from] * share));
      green = Math.fround(green + Math.fround(data[from + 1] * share));
      blue = Math.fround(blue + Math.fround(data[from + 2] * share));
    }
    narrow[at] = red;
    narrow[at + 1] = green;
    narrow[at + 2] = blue;
  }
}

/** For each new cell, from starts[i] to starts[i + 1], the old ones that it covers, with their shares; 1 for whole ones. */
function areaShares(from, to, isWhole) {
  const starts = [0], cells = [], shares = [], scale = from / to;
  for (let cell = 0; cell < to; cell++) {
    const start = cell * scale, end = start + scale, size = isWhole ? 1 : Math.min(scale, from - start);
    const last = Math.min(Math.floor(end), isWhole ? from : from - 1), first = Math.min(Math.ceil(start), last);
    const add = (index, share) => {
      cells.push(index);
      shares.push(share / size);
    };
    if (first - start > LEAST_SHARE) add(first - 1, first - start);
    for (let index = first; index < last; index++) add(index, 1);
    if (end - last > LEAST_SHARE) add(last, Math.min(end - last, 1, size));
    starts.push(cells.length);
  }
  return { starts, cells, shares: Float32Array.from(shares) };
}

/** Linear interpolation in whole numbers, as OpenCV computes it. */
function resizeLinear(data, width, height, channels, newWidth, newHeight) {
  const bytes = new Uint8Array(3 * newWidth * newHeight), length = 3 * newWidth;
  const columns = linearShares(width, newWidth, true), rows = linearShares(height, newHeight, false);
  const wide = new Map();  // the two rows in use
  const widened = (row) => {
    const values = new Int32Array(length), start = row * width;
    for (let column = 0, at = 0; column < newWidth; column++) {
      const low = (start + columns.low[column]) * channels, high = (start + columns.high[column]) * channels;
      const lowShare = columns.lowShare[column], highShare = columns.highShare[column];
      for (let channel = 0; channel < 3; channel++) values[at++] = data[low + channel] * lowShare + data[high + channel] * highShare;
    }
    return values;
  };
  for (let row = 0; row < newHeight; row++) {
    const pair = [rows.low[row], rows.high[row]];
    for (const old of wide.keys()) if (!pair.includes(old)) wide.delete(old);
    for (const one of pair) if (!wide.has(one)) wide.set(one, widened(one));
    const [upper, lower] = pair.map((one) => wide.get(one)), lowShare = rows.lowShare[row], highShare = rows.highShare[row];
    for (let at = 0; at < length; at++) {
      const above = (lowShare * (upper[at] >> 4)) >> 16, below = (highShare * (lower[at] >> 4)) >> 16;
      bytes[row * length + at] = (above + below + 2) >> 2;
    }
  }
  return bytes;
}

/** For each new cell the two old ones beside its centre, with their shares in units of 1 / UNIT; beyond the ends OpenCV has columns whole. */
function linearShares(from, to, areColumns) {
  const low = [], high = [], lowShare = [], highShare = [], scale = 1 / (to / from);
  for (let cell = 0; cell < to; cell++) {
    const place = Math.fround((cell + 0.5) * scale - 0.5), first = Math.floor(place);
    const isOutside = first < 0 || first >= from - 1, share = areColumns && isOutside ? 0 : Math.fround(place - first);
    low.push(Math.min(Math.max(first, 0), from - 1));
    high.push(Math.min(Math.max(first + 1, 0), from - 1));
    lowShare.push(roundHalfToEven(Math.fround(1 - share) * UNIT));
    highShare.push(roundHalfToEven(share * UNIT));
  }
  return { low, high, lowShare, highShare };
}

// ------------------------------------------------------------------------------------------------- boxes

/** Decode a level's map (1, A * (5 + K), rows, columns) to predictions; formulas in the metadata. */
function decode({ data, dims }, level, inputDims, { max_log_ratio: maxLogRatio, short_side: shortSide }) {
  const [, channels, height, width] = dims, anchors = level.anchors_px, columns = channels / anchors.length, area = height * width;
  const cell = [inputDims[3] / width, inputDims[2] / height], rows = new Float32Array(channels * area);
  const sigmoid = (value) => 1 / (1 + Math.exp(-value)), exp = (value) => Math.exp(Math.min(value, maxLogRatio));
  let to = 0;
  for (const [number, anchor] of anchors.entries())
    for (let place = 0; place < area; place++, to += columns) {
      const value = (column) => data[(number * columns + column) * area + place];
      for (let column = 4; column < columns; column++) rows[to + column] = sigmoid(value(column));
      for (const axis of [0, 1]) {
        const index = axis ? Math.floor(place / width) : place % width;
        if (level.sizes === "distances") {
          const low = exp(value(axis)) - 1, high = exp(value(2 + axis)) - 1, sum = low + high;
          rows[to + axis] = (index + 0.5) * cell[axis] + ((high - low) / 2) * anchor[axis];
          rows[to + 2 + axis] = anchor[axis] * Math.max(sum, shortSide * Math.exp(Math.min(sum / shortSide, 1) - 1));
          continue;
        }
        const offset = level.offsets === "linear" ? value(axis) : level.xy_scale * (sigmoid(value(axis)) - 0.5) + 0.5;
        rows[to + axis] = (offset + index) * cell[axis];
        rows[to + 2 + axis] = anchor[axis] * (level.sizes === "square" ? (2 * sigmoid(value(2 + axis))) ** 2 : exp(value(2 + axis)));
      }
    }
  return rows;
}

/** Of two boxes of a class that overlap by more than iou, the better one stays; predictions has `columns` numbers for each. */
export function suppress(predictions, columns, conf, iou, maxDetections) {
  const limit = Math.fround(conf), candidates = [];
  for (let at = 0; at < predictions.length; at += columns) {
    if (!(predictions[at + 4] > limit)) continue;
    let label = 0;
    for (let column = 6; column < columns; column++) if (predictions[at + column] > predictions[at + 5 + label]) label = column - 5;
    const score = Math.fround(predictions[at + 4] * predictions[at + 5 + label]);
    if (!(score > limit)) continue;
    const [x, y, width, height] = predictions.subarray(at, at + 4);
    candidates.push({ label, score, xyxy: [x - width / 2, y - height / 2, x + width / 2, y + height / 2] });
  }
  candidates.sort((a, b) => b.score - a.score);
  const kept = [];
  for (const one of candidates.slice(0, Math.max(MAX_CANDIDATES, 16 * maxDetections))) {
    if (kept.length === maxDetections) break;
    if (!kept.some((better) => better.label === one.label && overlap(better.xyxy, one.xyxy) > iou)) kept.push(one);
  }
  return kept;
}

/** Intersection over union; NaN, which is above no limit, of two boxes without an area. */
function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const shared = Math.max(width, 0) * Math.max(height, 0);
  return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared);
}

/** The detections of a file with suppression inside: rows of box, score, class index, and how many there are. */
function rowsAbove([{ data }, counts], conf) {
  const limit = Math.fround(conf), found = [];
  for (let at = 0; at < 6 * Number(counts.data[0]); at += 6)
    if (data[at + 4] > limit) found.push({ label: data[at + 5], score: data[at + 4], xyxy: [...data.subarray(at, at + 4)] });
  return found;
}
