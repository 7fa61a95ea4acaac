// Asks the agent: documents, and the live feed, which begins again by itself. The token is in this tab's memory only.

const TOKEN = "weir.token";

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);
export const dropToken = () => sessionStorage.removeItem(TOKEN);
export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export class NoToken extends Error {}

export async function ask(path, headers = {}, signal) {
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  if (answer.status === 401) throw new NoToken();
  if (!answer.ok) throw new Error((await answer.text()).trim() || `${path}: ${answer.status}`);
  return answer;
}

// What comes is handed on as (event, data, id); ends when the agent does. One that says nothing for 10 s is given up.
async function follow(path, last, onEvent) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), 10_000);
  try {
    const answer = await ask(path, last ? { "Last-Event-ID": last } : {}, silence.signal);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), 10_000);
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const fields = { event: "message", data: "", id: "" };
        for (const line of block.split("\n")) {
          const colon = line.indexOf(":");
          if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
        }
        onEvent(fields.event, fields.data, fields.id);
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

const pause = (length) => new Promise((wake) => setTimeout(wake, length));

// Watches for ever: soon again after an end that was to be expected, more slowly while nobody answers.
export async function watch(path, { onEvent, onLost, onLocked }) {
  let last = "";
  let wait = 500;
  for (;;) {
    try {
      await follow(path, last, (event, data, id) => {
        if (id) last = id;
        wait = 500;
        onEvent(event, data, id);
      });
    } catch (error) {
      if (error instanceof NoToken) {
        await onLocked();
        continue;
      }
      onLost(error);
    }
    await pause(wait);
    wait = Math.min(wait * 1.6, 5000);
  }
}
