// What is wrong and what to do about it; and whether the books close.

import { byId, element, exact, octets, say } from "/words.js";

const both = (kernel, name) => kernel[`${name}_uplink_octets`] + kernel[`${name}_downlink_octets`];

function ofLink(link, status) {
  const found = [];
  const problem = (what, todo) => found.push({ level: "problem", what, todo });
  const warning = (what, todo) => found.push({ level: "warning", what, todo });
  if (!link.metered) warning(`${link.link} is not metered: ${link.explanation}`, "Plug it in, or see the log: journalctl -u weir");
  else if (!link.subscriber && status.onboarding_trouble) problem(`${link.link}: ${link.explanation}; onboarding: ${status.onboarding_trouble}`, "Is the device registered there, the claim code right, a SIM free for the slot?");
  else if (link.aborted) problem(`${link.link}: ${link.explanation}`, "Have the server send REAUTHORISE.");
  else if (link.refused) problem(`${link.link}: ${link.explanation}`, "Is the SIM known at the server, has it a package for this rating group? The log has the server's cause. Then: weir renew");
  else if (link.state === "exhausted") problem(`${link.link}: ${link.explanation}`, "Buy a top-up; the agent asks again by itself, or at once: weir renew");
  else if (link.state === "offline") warning(`${link.link}: ${link.explanation}`, "See whether the charging server can be reached: weir doctor");
  else if (link.state === "final") warning(`${link.link}: ${link.explanation}`, "Buy a top-up before it is used up.");
  if (link.unmetered_prefix_octets > 0) {
    warning(`${octets(link.unmetered_prefix_octets)} passed ${link.link} while it was not metered`, "Start weir before the link comes up, so that it is metered from its first packet.");
  }
  if (link.meter_gaps > 0) warning(`Somebody else took the meter off ${link.link} ${link.meter_gaps} times`, "Find the program that clears the link's filters: weir doctor");
  const wasted = link.kernel.policed_downlink_octets ?? 0;
  if (wasted > 0) warning(`${octets(wasted)} came too fast for the throttled ${link.link} and were paid for nothing`, "Throttle the senders, or buy a top-up.");
  return found;
}

function ofAgent(status) {
  const found = [];
  const problem = (what, todo) => found.push({ level: "problem", what, todo });
  const warning = (what, todo) => found.push({ level: "warning", what, todo });
  if (status.ledger_trouble) problem(`${status.ledger_trouble}; nothing more is granted until it can`, "Make room, or mount the file system of the ledger writable again.");
  if (status.ledger_drift_octets > 0) problem(`The ledger does not close by ${octets(status.ledger_drift_octets)}`, "This must never be: keep the ledger file and report it.");
  for (const damage of status.ledger_damage) problem(damage, "Move the damaged file away once you have what you need of it.");
  if (!status.ledger_persistent) problem("The ledger lies in memory: a reboot loses what is not yet acknowledged", "Set ledger.path to storage that lasts.");
  if (status.set_aside_octets > 0) problem(`The server has refused messages with ${octets(status.set_aside_octets)} for good`, "Ask the seller why; they are listed by: weir ledger");
  if (status.in_doubt_octets > 0) warning(`${octets(status.in_doubt_octets)} were sent once, not answered, and are not sent again`, "Compare with the seller's account; they are listed by: weir ledger");
  if (status.uncertain_octets > 0) warning(`Up to ${octets(status.uncertain_octets)} may have passed after the last record before the power went; they are not billed`, "Set agent.max_unrecorded to bound it.");
  if (!status.clock_synced) warning("The clock is not synchronised: times may be wrong", "Let NTP through; octets are counted all the same.");
  return found;
}

export function drawTroubles(status) {
  const found = [...ofAgent(status), ...status.links.flatMap((link) => ofLink(link, status))];
  found.sort((one, other) => one.level.localeCompare(other.level));
  const list = byId("troubles");
  const key = JSON.stringify(found);
  byId("wrong").classList.toggle("is-fine", found.length === 0);
  byId("fine").hidden = found.length > 0;
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...found.map(({ level, what, todo }) => element("li", { "data-level": level }, element("strong", {}, what), todo)));
}

function row(words, value, kind) {
  return element("tr", kind ? { class: kind } : {}, element("th", { scope: "row" }, words), element("td", {}, exact(value)));
}

// Reported octets are of containers that are sealed; what was not acknowledged of them is buffered in the ledger.
export function drawBooks(status) {
  const closes = status.ledger_drift_octets === 0;
  const verdict = byId("verdict");
  verdict.dataset.closes = closes;
  say(verdict, closes ? "Yes: drift 0 octets. What was counted joins without a gap, and nothing is in it twice." : `No: ${exact(status.ledger_drift_octets)} octets are missing or twice.`);
  const rows = [];
  for (const link of status.links) {
    rows.push(row(`${link.link}: passed by the kernel's count`, both(link.kernel, "passed")));
    const used = link.session_uplink_octets + link.session_downlink_octets;
    rows.push(row("… in the present session", used));
    rows.push(row("… not yet in a sealed report", link.unreported_octets));
  }
  const containers = status.buffered_containers === 1 ? "1 container" : `${status.buffered_containers} containers`;
  rows.push(row(`Recorded, not yet acknowledged (${containers})`, status.unacknowledged_octets, "sum"));
  rows.push(row("Refused by the server, set aside", status.set_aside_octets));
  rows.push(row("In doubt, not sent again", status.in_doubt_octets));
  rows.push(row("Ledger drift", status.ledger_drift_octets, "sum"));
  byId("books").replaceChildren(...rows);
}
