// The preview beside the form: one file as the renderer makes it, with its weight, in any size, format and row.

const form = document.getElementById("order");
const stage = document.getElementById("stage");
const canvas = stage.querySelector("canvas");
const first = stage.querySelector("img");
const sizeSelect = document.getElementById("preview-size");
const formatSelect = document.getElementById("preview-format");
const weight = document.getElementById("weight");
const problem = document.getElementById("preview-problem");
const rowNote = document.getElementById("row-note");

function kilobytes(bytes) {
  if (bytes >= 999500) return `${(bytes / 1e6).toFixed(1)} MB`;
  return bytes < 9950 ? `${(bytes / 1000).toFixed(1)} kB` : `${Math.round(bytes / 1000)} kB`;
}

function offer(select, values, label) {
  const before = select.value;
  select.replaceChildren(...values.map((value) => new Option(label(value), value)));
  select.value = values.includes(before) ? before : values[0];
}

// The strictest limit of the chosen networks for a size, and the person's own; undefined where there is none.
function limit(data, sizes, size) {
  const networks = new Set(data.getAll("networks"));
  const entry = sizes.find((option) => option.querySelector("input").value === size);
  const limits = (entry?.dataset.limits ?? "").split(" ").map((text) => text.split(":"));
  const found = limits.filter(([name, bytes]) => networks.has(name) && bytes).map(([, bytes]) => Number(bytes));
  const own = Number(data.get("max_kb").replace(",", ".")) * 1000;
  if (own > 0) found.push(Math.round(own));
  return found.length ? Math.min(...found) : undefined;
}

function showWeight(bytes, most) {
  if (!most) {
    weight.textContent = `${kilobytes(bytes)}, no limit`;
    return;
  }
  const verdict = bytes > most ? "over" : bytes >= 0.9 * most ? "close" : "fits";
  const badge = document.getElementById(`weight-${verdict}`).content.cloneNode(true);
  badge.querySelector("b").textContent = `${kilobytes(bytes)} of ${kilobytes(most)}`;
  weight.replaceChildren(badge);
}

function order(data, sizes, row) {
  const asked = { design: data.get("design"), size: sizeSelect.value, format: formatSelect.value };
  const most = limit(data, sizes, asked.size);
  if (most) asked.max_bytes = most;
  if (data.get("source") === "typed") {
    asked.fields = Object.fromEntries([...data].filter(([name]) => name.startsWith("field.")).map(([name, value]) => [name.slice(6), value]));
  } else asked.row = row;
  if (data.get("feed")) asked.feed = data.get("feed");
  return asked;
}

export function follow(filledIn, sizes) {
  let row = 1;
  let rows = 1;
  let asking = new AbortController();
  let later;

  async function show() {
    asking.abort();
    asking = new AbortController();
    const data = filledIn();
    const asked = order(data, sizes, row);
    const typed = Boolean(asked.fields);
    rowNote.textContent = typed ? "one row" : `row ${row} of ${rows}`;
    stage.classList.add("waiting");
    try {
      if (data.get("source") === "feed" && !data.get("feed")) throw new Error("Choose a CSV file to see its rows.");
      const headers = { "Content-Type": "application/json", Accept: "image/*, application/problem+json" };
      const response = await fetch("../v1/preview", { method: "POST", headers, body: JSON.stringify(asked), signal: asking.signal });
      if (!response.ok) throw new Error((await response.json()).detail);
      const picture = await createImageBitmap(await response.blob());
      canvas.width = picture.width;
      canvas.height = picture.height;
      canvas.getContext("2d").drawImage(picture, 0, 0);
      canvas.setAttribute("aria-label", `${asked.size.replace("x", "×")} as ${asked.format}, row ${row}`);
      canvas.hidden = false;
      first.hidden = true;
      problem.textContent = "";
      showWeight(Number(response.headers.get("X-Bytes")), asked.max_bytes);
    } catch (error) {
      if (error.name === "AbortError") return;
      problem.textContent = error.message || "No preview could be made.";
      canvas.hidden = true;
      first.hidden = true;
      weight.textContent = "";
    }
    stage.classList.remove("waiting");
  }

  function update() {
    const data = filledIn();
    const more = data.get("more_sizes").toLowerCase().replaceAll("×", "x").match(/\b[1-9]\d{0,3}x[1-9]\d{0,3}\b/g) ?? [];
    const own = form.querySelector("[name=design]:checked")?.dataset.sizes.split(" ") ?? [];
    const wanted = [...data.getAll("sizes"), ...more];
    offer(sizeSelect, wanted.length ? wanted : own, (size) => size.replace("x", "×"));
    offer(formatSelect, data.getAll("formats").length ? data.getAll("formats") : ["jpeg"], (format) => format);
    clearTimeout(later);
    later = setTimeout(show, 120);
  }

  function step(by) {
    row = (row - 1 + by + rows) % rows + 1;
    show();
  }

  sizeSelect.addEventListener("change", show);
  formatSelect.addEventListener("change", show);
  document.getElementById("row-back").addEventListener("click", () => step(-1));
  document.getElementById("row-next").addEventListener("click", () => step(1));

  return {
    update,
    rows(count) {
      rows = Math.max(1, count);
      if (row > rows) {
        row = 1;
        show();
      } else rowNote.textContent = rowNote.textContent === "one row" ? "one row" : `row ${row} of ${rows}`;
    },
  };
}
