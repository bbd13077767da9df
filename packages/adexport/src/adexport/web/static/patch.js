// Brings parts of an open page up to date from a fresh copy of it. Keyed elements that did not change stay untouched.

function patchKeyed(old, fresh) {
  const known = new Map([...old.children].map((child) => [child.dataset.key, child]));
  const kept = [...fresh.children].map((child) => {
    const before = known.get(child.dataset.key);
    if (!before || before.tagName !== child.tagName) return child;
    if (child.children.length && [...child.children].every((inner) => inner.dataset.key)) {
      patchKeyed(before, child);
      return before;
    }
    return before.innerHTML === child.innerHTML ? before : child;
  });
  if (kept.length !== old.children.length || kept.some((child, at) => child !== old.children[at])) {
    old.replaceChildren(...kept);
  }
}

function patchRegion(old, fresh) {
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  if ([...fresh.children].every((child) => child.dataset.key)) patchKeyed(old, fresh);
  else if (old.innerHTML !== fresh.innerHTML) old.replaceChildren(...fresh.childNodes);
}

// A bar that is replaced would jump; the same element with a new value moves.
function keepProgress(old, fresh) {
  const before = old.querySelector("progress");
  const after = fresh.querySelector("progress");
  if (before && after) {
    before.value = after.value;
    before.className = after.className;
    after.replaceWith(before);
  }
}

export async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  if (!response.ok) throw new Error(`the page answered ${response.status}`);
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const focused = document.activeElement?.closest("[data-open]")?.getAttribute("href");
  for (const region of fresh.querySelectorAll("[data-live]")) {
    const old = document.getElementById(region.id);
    if (!old) continue;
    keepProgress(old, region);
    patchRegion(old, region);
  }
  if (focused && document.activeElement === document.body) document.querySelector(`[href="${focused}"]`)?.focus();
}
