// What every page can do: theme switch, copying, times that stay true, questions before a step, and the keyboard.

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const toast = document.querySelector(".toast");
let toastEnds;

export function say(text) {
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(toastEnds);
  toastEnds = setTimeout(() => { toast.hidden = true; }, 2400);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    say("The browser did not allow copying: select the text and copy it by hand");
  }
}

function switchTheme() {
  const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-copy], [data-copy-link], [data-theme-switch], [data-keys]");
  if (!target) return;
  if (target.dataset.copy) copy(target.dataset.copy, "Id");
  else if ("copyLink" in target.dataset) copy(location.href, "Link");
  else if ("themeSwitch" in target.dataset) switchTheme();
  else document.querySelector(".keys").showModal();
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

const plural = (number, unit) => `${number} ${unit} ago`;

function ago(seconds) {
  if (seconds < 45) return "just now";
  if (seconds < 3570) return plural(Math.round(seconds / 60), "min");
  if (seconds < 84600) return plural(Math.round(seconds / 3600), "h");
  return plural(Math.round(seconds / 86400), "d");
}

setInterval(() => {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    if (seconds < 30 * 86400) time.textContent = ago(seconds);
  }
}, 20000);

const writing = (element) => element.matches("input, textarea, select") && !element.matches("[type=checkbox], [type=radio]");
const steps = { j: 1, k: -1 };

function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent);
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const next = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.max(0, Math.min(rows.length - 1, at + by))];
  if (!next) return;
  const target = next.querySelector("[data-open]") ?? next.querySelector("a, button, input") ?? next;
  if (target === next) next.tabIndex = -1;
  target.focus();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || writing(event.target) || document.querySelector("dialog[open]")) return;
  if (event.key in steps) step(steps[event.key]);
  else if (event.key === "?") document.querySelector(".keys").showModal();
  else if (event.key === "n") location.assign(`${document.body.dataset.root}exports/new`);
  else if (event.key === "/") {
    const search = document.querySelector("[data-search]");
    if (search) search.focus();
    else location.assign(`${document.body.dataset.root}exports#search`);
  } else return;
  event.preventDefault();
});

if (location.hash === "#search") document.querySelector("[data-search]")?.focus();

// A file field that is all there is to a form sends it at once.
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-send]") && event.target.files.length) event.target.form.requestSubmit();
});
