// Bars of octets over time: by pointer, by arrow keys, and as a table.

import { byId, drawn, element, octets, say } from "/words.js";

const [TALL, LOW] = [240, 190];
const FOOT = 22;
const HEAD = 14;

const SHAPES = {
  hour: [{ hour: "2-digit", minute: "2-digit" }, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }],
  day: [{ day: "numeric", month: "short" }, { weekday: "long", day: "numeric", month: "long", year: "numeric" }],
  month: [{ month: "short", year: "2-digit" }, { month: "long", year: "numeric" }],
};

let shown = { by: "hour", bars: [], sum: "" };
let chosen = -1;

// The agent tells times by the clock on its own wall: that is what is shown, wherever this browser is.
function label(bar, size) {
  const shape = { ...SHAPES[shown.by][size], timeZone: "UTC" };
  return new Intl.DateTimeFormat("en-GB", shape).format(new Date(`${bar.begin.slice(0, 19)}Z`));
}

// A round number of octets at or above the largest bar, so that its quarters are round as well.
function ceilingOf(most) {
  let step = 1024;
  while (step * 1024 <= most) step *= 1024;
  for (const factor of [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]) {
    if (step * factor >= most) return step * factor;
  }
  return most;
}

const short = (count) => (count === 0 ? "0" : octets(count).replace(".0", ""));

function choose(index) {
  const groups = byId("chart").querySelectorAll("g.column");
  groups[chosen]?.classList.remove("chosen");
  chosen = Math.max(-1, Math.min(shown.bars.length - 1, index));
  const bar = shown.bars[chosen];
  const readout = byId("readout");
  if (!bar) {
    const key = (way, word) => element("span", { class: "key" }, element("i", { class: way }), word);
    readout.replaceChildren(shown.sum, key("down", "downlink"), key("up", "uplink"));
    return;
  }
  groups[chosen].classList.add("chosen");
  say(readout, `${label(bar, 1)}: ${octets(bar.down + bar.up)} (↓ ${octets(bar.down)}, ↑ ${octets(bar.up)})`);
}

function draw() {
  const place = byId("chart");
  const width = Math.max(260, place.clientWidth);
  const height = width < 500 ? LOW : TALL;
  const { bars } = shown;
  const top = ceilingOf(Math.max(1024, ...bars.map(({ down, up }) => down + up)));
  const y = (count) => HEAD + (height - HEAD - FOOT) * (1 - count / top);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: "0", "aria-label": `Octets by ${shown.by}, ${bars.length} bars; arrow keys read them out` });
  for (const quarter of [0, 1, 2, 3, 4]) {
    const level = y((top * quarter) / 4);
    svg.append(drawn("line", { x1: 0, x2: width, y1: level, y2: level }));
    if (quarter % 2 === 0 && quarter > 0) svg.append(drawn("text", { x: 0, y: level - 3 }, short((top * quarter) / 4)));
  }
  const step = width / Math.max(1, bars.length);
  const gap = Math.min(3, step / 5);
  const every = Math.ceil(64 / step);
  bars.forEach((bar, index) => {
    const x = index * step;
    const both = bar.down + bar.up;
    const group = drawn("g", { class: "column", "data-index": index });
    group.append(drawn("rect", { class: "hit", x, y: 0, width: step, height: height - FOOT }));
    group.append(drawn("rect", { class: "up", x: x + gap / 2, width: step - gap, y: y(both), height: y(bar.down) - y(both) }));
    group.append(drawn("rect", { class: "down", x: x + gap / 2, width: step - gap, y: y(bar.down), height: y(0) - y(bar.down) }));
    svg.append(group);
    if ((bars.length - 1 - index) % every === 0) {
      const end = index === bars.length - 1;
      svg.append(drawn("text", { x: end ? width : x + step / 2, y: height - 6, "text-anchor": end ? "end" : "middle" }, label(bar, 0)));
    }
  });
  svg.addEventListener("pointermove", (event) => {
    const column = event.target.closest("g.column");
    if (column) choose(Number(column.dataset.index));
  });
  svg.addEventListener("pointerleave", () => choose(-1));
  svg.addEventListener("keydown", (event) => {
    const last = bars.length - 1;
    const moves = { ArrowLeft: chosen < 0 ? last : Math.max(0, chosen - 1), ArrowRight: chosen < 0 ? last : chosen + 1, Home: 0, End: last, Escape: -1 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    choose(moves[event.key]);
  });
  const focused = document.activeElement?.closest("#chart");
  place.replaceChildren(svg);
  if (focused) svg.focus();
  choose(chosen);
}

const KEPT = { hour: 48, day: 31, month: 24 };

// The usage document: bars of its spans, and how the billing period goes.
export function drawChart(by, usage) {
  if (by !== shown.by) chosen = -1;
  const spans = usage.spans.slice(-KEPT[by]);
  const bars = spans.map(({ begin, downlink_octets: down, uplink_octets: up }) => ({ begin, down, up }));
  const period = usage.running.period;
  const used = octets(period.downlink_octets + period.uplink_octets);
  const pace = period.estimate_octets === null ? "" : `; at this pace ${octets(period.estimate_octets)} by its end`;
  shown = { by, bars, sum: `This billing period: ${used}${pace}` };
  draw();
  const rows = [...bars].reverse().map((bar) => element("tr", {}, element("th", { scope: "row" }, label(bar, 1)), element("td", {}, octets(bar.down)), element("td", {}, octets(bar.up)), element("td", {}, octets(bar.down + bar.up))));
  byId("history-table").tBodies[0].replaceChildren(...rows);
}

new ResizeObserver(() => shown.bars.length > 0 && draw()).observe(byId("chart"));
