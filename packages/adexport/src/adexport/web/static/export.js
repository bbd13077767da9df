// The page of one export: follows its stream, adds what happened to the timeline, and shows a file large.

import { say } from "./app.js";
import { follow } from "./stream.js";
import { refresh } from "./patch.js";

// A page of a large export takes the server a while: what one took decides when the next is asked for.
const SOONEST = 300;
const SHARE = 2;
const timeline = document.getElementById("timeline");
const live = document.getElementById("live");
const progress = document.getElementById("progress");
const over = () => progress.dataset.over === "yes";
const ends = new Set(["completed", "failed", "cancelled"]);

let due = false;
let wanted = false;
let took = 0;

async function soon() {
  wanted = true;
  if (due) return;
  due = true;
  while (wanted) {
    await new Promise((resolve) => { setTimeout(resolve, Math.max(SOONEST, SHARE * took)); });
    wanted = false;
    const began = performance.now();
    await refresh().catch(() => { wanted = true; });
    took = performance.now() - began;
  }
  due = false;
}

function since(at) {
  const seconds = Date.parse(at) / 1000 - Number(timeline.dataset.start);
  if (seconds < 0.0995) return `+${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `+${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `+${whole} s` : `+${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

function add(sequence, entry) {
  if (timeline.querySelector(`[data-sequence="${sequence}"]`)) return;
  const item = document.getElementById("entry").content.firstElementChild.cloneNode(true);
  item.dataset.sequence = sequence;
  item.dataset.kind = entry.kind;
  item.classList.add("fresh");
  Object.assign(item.querySelector("p"), { textContent: entry.text, title: entry.text });
  const time = item.querySelector("time");
  time.dateTime = entry.at;
  time.title = entry.at;
  time.textContent = since(entry.at);
  const id = item.querySelector(".id");
  if (entry.event_id) {
    id.dataset.copy = entry.event_id;
    id.querySelector("span").textContent = entry.event_id;
  } else id.remove();
  timeline.prepend(item);
}

if (!over()) {
  const state = (word) => {
    live.hidden = over();
    live.textContent = word;
    live.classList.toggle("lost", word === "reconnecting");
  };
  follow(timeline.dataset.stream, Number(timeline.dataset.last), (sequence, entry) => {
    add(sequence, entry);
    soon();
    if (!ends.has(entry.kind)) return false;
    live.hidden = true;
    say(entry.text);
    return true;
  }, state);
}

const viewer = document.querySelector(".viewer");
const pictures = () => [...document.querySelectorAll("[data-view]")];
let at = 0;

function show(index) {
  const all = pictures();
  at = Math.max(0, Math.min(all.length - 1, index));
  const tile = all[at].closest(".tile");
  const source = all[at].querySelector("img");
  const picture = viewer.querySelector("img");
  picture.src = source.src;
  picture.alt = source.alt;
  viewer.querySelector("h2").textContent = source.alt;
  viewer.querySelector(".files").replaceChildren(...[...tile.querySelectorAll(".files > li")].map((file) => file.cloneNode(true)));
  if (!viewer.open) viewer.showModal();
}

document.addEventListener("click", (event) => {
  const picture = event.target.closest("[data-view]");
  if (picture && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    show(pictures().indexOf(picture));
  }
  const by = event.target.closest("[data-step]");
  if (by) show(at + Number(by.dataset.step));
  if (event.target === viewer) viewer.close();
});

document.addEventListener("keydown", (event) => {
  if (!viewer.open) return;
  const by = { j: 1, k: -1, ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) show(at + by);
});
viewer.addEventListener("close", () => pictures()[at]?.focus());
