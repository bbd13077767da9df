// Server-sent events over fetch: unlike EventSource it can name the last event seen when it starts, and be stopped.

const SLOTS = 4;

async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    const parts = text.split("\n\n");
    text = parts.pop();
    yield* parts;
  }
}

function parse(block) {
  const event = { data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
    if (name === "data") event.data += event.data ? `\n${value}` : value;
    else if (name) event[name] = value;
  }
  return event;
}

// A browser opens six connections to a host. Four pages stream at a time; a page that finds no place asks in turns.
async function withSlot(work, without) {
  if (!navigator.locks) return work();
  for (let slot = 0; slot < SLOTS; slot += 1) {
    const ran = await navigator.locks.request(`stream-${slot}`, { ifAvailable: true }, async (lock) => {
      if (lock) await work();
      return Boolean(lock);
    });
    if (ran) return undefined;
  }
  return without();
}

const rest = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const shown = () => new Promise((resolve) => {
  if (!document.hidden) resolve();
  else document.addEventListener("visibilitychange", resolve, { once: true });
});

// Calls onEvent once for each event after `last`, through cut connections, until it returns true. Only a visible page
// holds a connection. onState hears "live", "in turns" or "reconnecting".
export async function follow(url, last, onEvent, onState) {
  let over = false;
  let pause = 500;
  let failures = 0;

  const take = async (response) => {
    for await (const block of blocks(response.body)) {
      if (over) return;
      const event = parse(block);
      if (event.retry) pause = Number(event.retry);
      if (event.event === "end") over = true;
      if (over || !event.id || Number(event.id) <= last) continue;
      last = Number(event.id);
      over = onEvent(last, JSON.parse(event.data));
    }
  };

  const connect = async () => {
    const stop = new AbortController();
    const hide = () => { if (document.hidden) stop.abort(); };
    document.addEventListener("visibilitychange", hide);
    try {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": String(last) };
      const response = await fetch(url, { headers, signal: stop.signal, cache: "no-store" });
      if (!response.ok) throw new Error(`the stream answered ${response.status}`);
      failures = 0;
      onState("live");
      await take(response);
    } finally {
      document.removeEventListener("visibilitychange", hide);
      stop.abort();
    }
  };

  const ask = async () => {
    const response = await fetch(url.replace(/events$/, `timeline?after=${last}`), { cache: "no-store" });
    if (!response.ok) throw new Error(`the timeline answered ${response.status}`);
    failures = 0;
    onState("in turns");
    for (const entry of await response.json()) {
      last = entry.sequence;
      over = onEvent(last, entry) || over;
    }
    await rest(1000);
  };

  while (!over) {
    await shown();
    try {
      await withSlot(connect, ask);
      await rest(over ? 0 : pause);
    } catch (error) {
      if (error.name !== "AbortError") failures += 1;
      if (failures > 1) onState("reconnecting");
      await rest(Math.min(pause * 2 ** failures, 10000));
    }
  }
}
