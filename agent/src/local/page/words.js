// Octets, times and rates in words; and elements, whose text is always text.

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

// As `weir status` spells them: plain below 10 KiB, else with a binary unit.
export function octets(count) {
  if (count < 10240) return `${count.toLocaleString("en")}\u00a0octets`;
  let value = count / 1024;
  let unit = 0;
  while (value >= 1024 && unit + 1 < UNITS.length) {
    value /= 1024;
    unit += 1;
  }
  return `${(Math.floor(value * 10) / 10).toFixed(1)}\u00a0${UNITS[unit]}`;
}

export const exact = (count) => count.toLocaleString("en").replaceAll(",", "\u202f");

export const rate = (count) => `${octets(Math.round(count))}/s`;

export function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (minutes < 90) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(minutes / 1440)} days`;
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export function clock(at) {
  const time = new Date(at);
  const today = new Date().toDateString() === time.toDateString();
  return today ? CLOCK.format(time) : `${DAY.format(time)} ${CLOCK.format(time).slice(0, 5)}`;
}

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Written only when it is new: a screen reader is not told the same again.
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
