// The curve of metric over multiply-adds of a file's networks, as inline SVG.

const WIDTH = 308, HEIGHT = 168, LEFT = 38, RIGHT = 10, TOP = 20, BOTTOM = 30;

/** Draw the networks of `costs` into `place`; returns a function that marks one of them. */
export function drawCurve(place, costs, onChoice) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const xs = axis(costs.networks.map((one) => one.multiply_adds), LEFT, WIDTH - RIGHT, true);
  const ys = axis(costs.networks.map((one) => one.metric), HEIGHT - BOTTOM, TOP, false);
  const at = (one) => [xs.place(one.multiply_adds), ys.place(one.metric)];
  for (const value of ys.ticks) {
    svg.append(element("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: ys.place(value), y2: ys.place(value) }));
    svg.append(label(value.toFixed(ys.digits), { x: LEFT - 6, y: ys.place(value) + 4, "text-anchor": "end" }));
  }
  for (const value of xs.ticks) svg.append(label(quantity(value), { x: xs.place(value), y: HEIGHT - 15, "text-anchor": "middle" }));
  svg.append(label(costs.metric, { x: 0, y: 9 }));
  svg.append(label("multiply-adds of a square image", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }));
  const front = costs.networks.filter((one) => one.is_best);
  svg.append(element("polyline", { class: "front", points: front.map((one) => at(one).join(",")).join(" ") }));
  const guide = element("line", { class: "guide", y2: HEIGHT - BOTTOM });
  svg.append(guide);
  for (const one of costs.networks) {
    const [cx, cy] = at(one);
    const dot = element("circle", { class: one.is_best ? "point" : "other", cx, cy, r: one.is_best ? 4 : 3 });
    if (one.is_best) dot.addEventListener("click", () => onChoice(one));
    svg.append(dot);
  }
  const present = element("circle", { class: "present", r: 6 });
  svg.append(present);
  place.replaceChildren(svg);
  return (one) => {
    const [x, y] = at(one);
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: y })) guide.setAttribute(name, value);
    present.setAttribute("cx", x);
    present.setAttribute("cy", y);
    svg.setAttribute("aria-label", `${costs.metric} over multiply-adds of ${costs.networks.length} networks; in use: ${one.name}, ${costs.metric} ${one.metric.toFixed(3)}`);
  };
}

/** A number of operations in three digits, as `1.24 G`. */
export function quantity(value) {
  const [unit, size] = [["T", 1e12], ["G", 1e9], ["M", 1e6], ["k", 1e3]].find(([, size]) => value >= size) ?? ["", 1];
  return `${Number((value / size).toPrecision(3))}${unit && "\u00a0"}${unit}`;
}

/** Places of values between two ends, with about four round ticks. */
function axis(values, start, end, fromZero) {
  const low = fromZero ? 0 : Math.min(...values), high = Math.max(...values);
  const margin = fromZero ? 0 : (high - low) * 0.12 || 0.05;
  const first = low - margin, last = high + margin || 1;
  const rough = (last - first) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10);
  const ticks = [];
  for (let value = Math.ceil(first / step - 1e-9) * step; value <= last + step * 1e-9; value += step) ticks.push(value);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { ticks, digits, place: (value) => Math.round((start + ((value - first) / (last - first)) * (end - start)) * 10) / 10 };
}

function label(text, attributes) {
  const made = element("text", attributes);
  made.textContent = text;
  return made;
}

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
