// The form of a new export: counts and checks while it is filled in, keeps its address, takes the feed.

import { follow as followPreview } from "./preview.js";

const form = document.getElementById("order");
const check = document.getElementById("check");
const go = document.getElementById("go");
const file = document.getElementById("file");
const drop = document.querySelector(".drop");
const fileNote = document.getElementById("file-note");
const feedRows = document.getElementById("feed-rows");
const sizes = [...document.querySelectorAll(".size")];
const chosen = (name) => [...form.querySelectorAll(`[name="${name}"]:checked`)].map((input) => input.value);

const many = (number, noun) => `${Number(number).toLocaleString("en")} ${noun}${Number(number) === 1 ? "" : "s"}`;

for (const hidden of document.querySelectorAll("[data-script]")) hidden.hidden = false;

// Only what a person sees is sent: the fields of a hidden source would make the address long and say nothing.
function filledIn() {
  const data = new FormData(form);
  data.delete("file");
  if (data.get("source") !== "typed") for (const name of [...data.keys()]) if (name.startsWith("field.")) data.delete(name);
  if (data.get("source") !== "feed") data.delete("feed");
  return data;
}

function keepAddress() {
  const given = new URLSearchParams([...filledIn()].filter(([, value]) => value));
  history.replaceState(null, "", `new?${given}`);
}

let checking = new AbortController();

async function recount() {
  checking.abort();
  checking = new AbortController();
  try {
    const response = await fetch("new/check", { method: "POST", body: filledIn(), signal: checking.signal });
    if (!response.ok) throw new Error(`the check answered ${response.status}`);
    check.innerHTML = await response.text();
    const files = check.querySelector("[data-files]")?.dataset.files;
    const blocked = Boolean(check.querySelector(".tone-dead"));
    go.textContent = files && !blocked ? `Export ${many(files, "file")}` : "Export";
    go.disabled = blocked;
    preview.rows(Number(check.querySelector("[data-rows]")?.dataset.rows ?? 1));
  } catch (error) {
    if (error.name !== "AbortError") check.textContent = "The service did not answer. It will be asked again at the next change.";
  }
}

let later;

function changed() {
  keepAddress();
  clearTimeout(later);
  later = setTimeout(recount, 200);
  preview.update();
}

// A network brings its own sizes along, ticked; sizes that no chosen network takes go away.
function showSizes(brought) {
  const networks = new Set(chosen("networks"));
  for (const size of sizes) {
    const takes = size.dataset.limits.split(" ").some((limit) => networks.has(limit.split(":")[0]));
    const input = size.querySelector("input");
    size.hidden = networks.size > 0 && !takes;
    if (size.hidden) input.checked = false;
    else if (brought && size.dataset.networks.split(" ").includes(brought)) input.checked = true;
  }
}

function tickAll(on) {
  for (const size of sizes) if (!size.hidden) size.querySelector("input").checked = on;
  changed();
}

function showSource() {
  const [source] = chosen("source");
  for (const part of document.querySelectorAll(".source")) part.hidden = part.dataset.source !== source;
}

// Another design has other fields: take them from a fresh copy of this page.
async function takeFields() {
  keepAddress();
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const selector of ["#fields-note", ".source.typed"]) {
    document.querySelector(selector).innerHTML = fresh.querySelector(selector).innerHTML;
  }
  changed();
}

function cells(tag, values) {
  const row = document.createElement("tr");
  row.append(...values.map((value) => Object.assign(document.createElement(tag), { textContent: value, title: value })));
  return row;
}

async function showFeed(id) {
  const response = await fetch(`../v1/feeds/${id}?limit=5`);
  if (!response.ok) return;
  const feed = await response.json();
  const table = document.createElement("table");
  table.append(cells("th", feed.columns), ...feed.rows.map((row) => cells("td", feed.columns.map((name) => row[name] ?? ""))));
  feedRows.replaceChildren(table);
  feedRows.hidden = false;
}

async function takeFeed(csv) {
  if (!csv) return;
  drop.classList.remove("bad");
  fileNote.textContent = `Reading ${csv.name}`;
  const headers = { "Content-Type": "text/csv", Accept: "application/json" };
  const response = await fetch(`../v1/feeds?filename=${encodeURIComponent(csv.name)}`, { method: "POST", body: csv, headers });
  const answer = await response.json();
  drop.classList.toggle("bad", !response.ok);
  feedRows.hidden = true;
  if (response.ok) {
    fileNote.textContent = `${csv.name}: ${many(answer.row_count, "row")}, ${many(answer.columns.length, "column")}. Choose another`;
    await showFeed(answer.id);
  } else fileNote.textContent = answer.detail ?? answer.title;
  form.elements.feed.value = response.ok ? answer.id : "";
  file.value = "";
  changed();
}

form.addEventListener("change", (event) => {
  const { name, value, checked } = event.target;
  if (event.target === file) {
    takeFeed(file.files[0]).catch(() => { fileNote.textContent = "The file could not be sent. Try again."; });
    return;
  }
  if (name === "networks") showSizes(checked ? value : "");
  if (name === "source") showSource();
  if (name === "design") takeFields().catch(changed);
  else if (name) changed();
});
form.addEventListener("input", (event) => { if (event.target.matches("input.field")) changed(); });
form.addEventListener("submit", () => { setTimeout(() => { go.disabled = true; }); });
addEventListener("pageshow", (event) => { if (event.persisted) go.disabled = false; });
document.querySelector("[data-sizes-all]").addEventListener("click", () => tickAll(true));
document.querySelector("[data-sizes-none]").addEventListener("click", () => tickAll(false));

for (const kind of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFeed(event.dataTransfer.files[0]);
  });
}

const preview = followPreview(filledIn, sizes);
showSizes("");
showSource();
if (form.elements.feed.value) showFeed(form.elements.feed.value);
changed();
