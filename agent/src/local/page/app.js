// Puts the page together: watches the agent, and draws what it says.

import { drawBooks, drawTroubles } from "/books.js";
import { drawChart } from "/chart.js";
import { drawLinks } from "/links.js";
import { NoToken, ask, dropToken, hasToken, keepToken, watch } from "/stream.js";
import { byId, clock, element, octets, say } from "/words.js";

const KEPT = 200;
const HISTORY_AGAIN = 60_000;

let by = "hour";

function live(state, words) {
  byId("live").dataset.state = state;
  say(byId("live-words"), words);
  document.body.toggleAttribute("data-stale", state === "lost");
}

function onStatus(status) {
  byId("login").hidden = true;
  byId("content").hidden = false;
  live("live", "live");
  say(byId("device"), status.device);
  document.title = `${status.links.some((link) => link.state === "exhausted") ? "● " : ""}weir ${status.device}`;
  drawTroubles(status);
  const news = drawLinks(byId("links"), status);
  if (news.length > 0) say(byId("announce"), news.join(" "));
  drawBooks(status);
  const unsynced = status.clock_synced ? "" : " (clock not synchronised)";
  say(byId("about"), `weir ${status.version} · charging server ${status.server} · onboarding: ${status.onboarding} · as of ${clock(status.at)}${unsynced}`);
}

function onHappening(happening, id) {
  const list = byId("timeline");
  if ([...list.children].some((item) => item.dataset.id === id)) return;
  const about = happening.octets === null ? "" : ` (${octets(happening.octets)})`;
  const whom = happening.link === null ? "" : `${happening.link}: `;
  const words = element("span", {}, whom, element("b", {}, `${happening.words}${about}`));
  list.prepend(element("li", { "data-id": id, "data-kind": happening.kind }, element("time", { datetime: happening.at }, clock(happening.at)), words));
  while (list.children.length > KEPT) list.lastElementChild.remove();
}

function login() {
  live("waiting", "locked");
  byId("content").hidden = true;
  const form = byId("login");
  say(byId("login-error"), hasToken() ? "The agent does not take this token." : "");
  dropToken();
  form.hidden = false;
  byId("token").focus();
  return new Promise((opened) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      keepToken(byId("token").value.trim());
      byId("token").value = "";
      opened();
    };
  });
}

async function history() {
  try {
    const usage = await (await ask(`/api/v1/usage?by=${by}`)).json();
    byId("history").hidden = false;
    drawChart(by, usage);
  } catch (error) {
    // The feed says so, and asks for the token.
    if (!(error instanceof NoToken)) console.debug("no history:", error.message);
  }
}

for (const button of byId("by").children) {
  button.addEventListener("click", () => {
    by = button.dataset.by;
    for (const other of byId("by").children) other.setAttribute("aria-pressed", String(other === button));
    history();
  });
}

let asked = false;
watch("/api/v1/events", {
  onEvent(event, data, id) {
    if (event === "status") {
      onStatus(JSON.parse(data));
      if (!asked) history();
      asked = true;
    }
    if (event === "happening") onHappening(JSON.parse(data), id);
  },
  onLost: () => live("lost", "the agent does not answer; trying again"),
  onLocked: login,
});
setInterval(() => asked && !document.hidden && history(), HISTORY_AGAIN);
