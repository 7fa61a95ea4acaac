// One card a link: its state in words, its rate, and how much of the package is gone.

import { drawn, duration, element, octets, rate, say } from "/words.js";

const MOODS = { active: "good", renewing: "good", final: "warn", exhausted: "bad", offline: "warn" };
const KEPT = 120;

const cards = new Map();

// What has passed the link in either direction, under whichever name.
function passed(link) {
  const kernel = link.kernel;
  const uplink = kernel.passed_uplink_octets + kernel.throttled_uplink_octets + kernel.control_uplink_octets;
  const downlink = kernel.passed_downlink_octets + kernel.throttled_downlink_octets + kernel.control_downlink_octets;
  return { uplink, downlink };
}

export function mood(link) {
  if (!link.metered) return "warn";
  return link.aborted ? "bad" : (MOODS[link.state] ?? "calm");
}

function figure(list, name) {
  const value = element("dd");
  const box = element("div", {}, element("dt", {}, name), value);
  list.append(box);
  return { box, value };
}

function makeCard(name) {
  const parts = {
    state: element("span", { class: "state" }),
    sim: element("span", { class: "sim" }),
    why: element("p", { class: "why" }),
    now: element("b"),
    ways: element("small"),
    area: drawn("path", { class: "area" }),
    line: drawn("path"),
    track: element("i"),
    gone: element("span"),
    left: element("span"),
    samples: [],
    before: undefined,
  };
  const spark = drawn("svg", { class: "spark", viewBox: "0 0 119 30", preserveAspectRatio: "none", "aria-hidden": "true" }, parts.area, parts.line);
  parts.bar = element("div", { class: "track", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100", "aria-label": `${name}: used` }, parts.track);
  const list = element("dl");
  for (const [key, words] of [["session", "This session"], ["unreported", "Not yet reported"], ["refused", "Refused"], ["ends", "Lasts for about"]]) {
    parts[key] = figure(list, words);
  }
  parts.card = element(
    "article",
    { class: "link", "aria-label": name, "data-link": name },
    element("div", { class: "name" }, element("h3", {}, name), parts.state, parts.sim),
    element("div", { class: "rate" }, element("div", {}, parts.now, parts.ways), spark),
    parts.why,
    element("div", { class: "fill" }, parts.bar, element("p", {}, parts.gone, parts.left)),
    list,
  );
  return parts;
}

// Octets a second from what the kernel has counted between two statuses; counters that go back are new ones.
function measure(parts, link, at) {
  const counted = passed(link);
  const { before } = parts;
  parts.before = { at, ...counted };
  if (!before || at <= before.at) return undefined;
  const seconds = (at - before.at) / 1000;
  const speed = (way) => Math.max(0, counted[way] - before[way]) / seconds;
  return { uplink: speed("uplink"), downlink: speed("downlink") };
}

function drawRate(parts, speed) {
  const { samples } = parts;
  samples.push(speed.uplink + speed.downlink);
  if (samples.length > KEPT) samples.shift();
  const top = Math.max(1, ...samples);
  const first = KEPT - samples.length;
  const points = samples.map((sample, index) => `${first + index},${(29 - (27 * sample) / top).toFixed(1)}`);
  parts.line.setAttribute("d", `M${points.join("L")}`);
  parts.area.setAttribute("d", `M${first},30L${points.join("L")}L${KEPT - 1},30Z`);
  say(parts.now, rate(speed.uplink + speed.downlink));
  say(parts.ways, `↓ ${rate(speed.downlink)}  ↑ ${rate(speed.uplink)}`);
}

// The package where the server tells of it, else what was granted.
function drawFill(parts, link) {
  const used = link.session_uplink_octets + link.session_downlink_octets;
  const bought = link.package?.bought_octets ?? null;
  const left = link.package?.left_octets ?? null;
  const known = bought !== null && left !== null && bought > 0;
  const share = known ? 1 - left / bought : link.ceiling_octets > 0 ? used / link.ceiling_octets : 0;
  const percent = Math.min(100, Math.max(0, 100 * share));
  parts.track.style.width = `${percent}%`;
  parts.bar.setAttribute("aria-valuenow", percent.toFixed(0));
  if (known) {
    say(parts.gone, `${octets(bought - left)} of the package's ${octets(bought)} used (${percent.toFixed(0)} %)`);
    say(parts.left, `${octets(left)} left · ${octets(link.remaining_octets)} of them granted`);
  } else {
    say(parts.gone, `${octets(used)} of ${octets(link.ceiling_octets)} granted used (${percent.toFixed(0)} %)`);
    say(parts.left, link.remaining_octets > 0 ? `${octets(link.remaining_octets)} left to the ceiling` : "nothing left");
  }
  parts.bar.setAttribute("aria-valuetext", parts.gone.textContent);
}

function drawLink(parts, link, at) {
  parts.card.dataset.mood = mood(link);
  parts.card.dataset.state = link.state;
  say(parts.state, link.metered ? link.state : "not metered");
  say(parts.sim, link.subscriber ?? "no SIM yet");
  say(parts.why, link.explanation);
  const speed = measure(parts, link, at);
  if (speed) drawRate(parts, speed);
  drawFill(parts, link);
  say(parts.session.value, `${octets(link.session_uplink_octets + link.session_downlink_octets)}, ${link.grants} grants`);
  say(parts.unreported.value, octets(link.unreported_octets));
  const refused = link.kernel.refused_uplink_octets + link.kernel.refused_downlink_octets;
  parts.refused.box.hidden = refused === 0;
  say(parts.refused.value, octets(refused));
  const ends = link.package?.runs_out_seconds ?? null;
  parts.ends.box.hidden = ends === null;
  if (ends !== null) say(parts.ends.value, duration(ends));
}

// Draws all; answers with what changed its state, in words, for those who do not see it.
export function drawLinks(place, status) {
  const at = Date.parse(status.at);
  const news = [];
  for (const link of status.links) {
    let parts = cards.get(link.link);
    if (!parts) {
      parts = makeCard(link.link);
      cards.set(link.link, parts);
      place.append(parts.card);
    } else if (parts.card.dataset.state !== link.state) {
      news.push(`${link.link} is ${link.state}: ${link.explanation}.`);
    }
    drawLink(parts, link, at);
  }
  for (const [name, parts] of cards) {
    if (!status.links.some((link) => link.link === name)) {
      parts.card.remove();
      cards.delete(name);
    }
  }
  return news;
}
