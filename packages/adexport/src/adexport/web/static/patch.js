// Brings parts of an open page up to date from a fresh copy of it. What did not change stays untouched, keyed elements
// keep their identity: a bar moves instead of jumping, a picture is not loaded twice.

const keyed = (element) => element.children.length > 0 && [...element.children].every((child) => child.dataset.key);

function patchAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
}

function patchKeyed(old, fresh) {
  const known = new Map([...old.children].map((child) => [child.dataset.key, child]));
  const kept = [...fresh.children].map((child) => {
    const before = known.get(child.dataset.key);
    if (before?.tagName !== child.tagName) return child;
    patch(before, child);
    return before;
  });
  if (kept.length !== old.childNodes.length || kept.some((child, at) => child !== old.childNodes[at])) {
    old.replaceChildren(...kept);
  }
}

function patch(old, fresh) {
  patchAttributes(old, fresh);
  if (keyed(fresh)) patchKeyed(old, fresh);
  else if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
}

export async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!response.ok) throw new Error(`the page answered ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const focused = document.activeElement?.closest("[href]")?.getAttribute("href");
  document.title = fresh.title;
  for (const region of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(region.id);
    if (old) patch(old, region);
  }
  if (focused && document.activeElement === document.body) document.querySelector(`[href="${focused}"]`)?.focus();
}
