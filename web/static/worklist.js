import "./scan.js";

// Keeps the worklist current: asks once a second, changes only the rows that changed, and never under a finger.

const EVERY_MS = 1000;
const STALE_MS = 5000;
const AFTER_TOUCH_MS = 600;

const live = document.getElementById("live");
const stale = document.getElementById("stale");

let etag = null;
let shown = null;
let heard = Date.now();
let touching = false;
let touched = 0;

addEventListener("pointerdown", () => (touching = true));
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => {
    touching = false;
    touched = Date.now();
  });
}

const rows = (root) => [...root.querySelectorAll(".row")];

/** Bring `list` to `fresh`, reusing every row that says the same as before. */
function reconcile(list, fresh) {
  const old = new Map(rows(list).map((row) => [row.id, row]));
  let at = list.firstElementChild;
  for (const row of rows(fresh)) {
    const kept = old.get(row.id);
    old.delete(row.id);
    const same = kept?.isEqualNode(row);
    if (kept && kept === at) at = at.nextElementSibling;
    else if (same) list.insertBefore(kept, at);
    else kept?.remove();
    if (!same) kept?.isConnected ? kept.replaceWith(row) : list.insertBefore(row, at);
  }
  for (const row of old.values()) row.remove();
}

/** Show the fetched text; what the person looks at stays where it is, and so does the focus. */
function show(text) {
  const fresh = document.createElement("template");
  fresh.innerHTML = text;
  const before = new Set(rows(live).map((row) => row.id));
  const focused = document.activeElement?.id;
  const anchor = scrollY > 0 ? rows(live).find((row) => row.getBoundingClientRect().bottom > 0) : undefined;
  const top = anchor?.getBoundingClientRect().top;

  const summary = live.querySelector("#summary");
  const now = fresh.content.querySelector("#summary");
  if (!summary.isEqualNode(now)) summary.replaceWith(now);
  const parts = live.querySelector("#parts");
  const then = fresh.content.querySelector("#parts");
  if (!parts.isEqualNode(then)) parts.replaceWith(then);
  reconcile(live.querySelector("#rows"), fresh.content.querySelector("#rows"));

  if (focused && document.activeElement?.id !== focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const moved = anchor && document.getElementById(anchor.id)?.getBoundingClientRect().top - top;
  if (moved) scrollBy({ top: moved, behavior: "instant" });
  for (const row of rows(live)) {
    if (before.size && !before.has(row.id)) {
      row.classList.add("new");
      setTimeout(() => row.classList.remove("new"), 4000);
    }
  }
}

async function poll() {
  try {
    const response = await fetch(live.dataset.url, {
      headers: etag ? { "If-None-Match": etag } : {},
      signal: AbortSignal.timeout(STALE_MS),
    });
    if (response.status === 401) dispatchEvent(new Event("signed-out"));
    if (response.status === 200) {
      const text = await response.text();
      if (touching || Date.now() - touched < AFTER_TOUCH_MS) etag = null;
      else {
        if (text !== shown) show(text);
        [shown, etag] = [text, response.headers.get("ETag")];
      }
    }
    if (response.ok || response.status === 304) heard = Date.now();
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  stale.hidden = Date.now() - heard < STALE_MS;
  setTimeout(poll, EVERY_MS);
}

setTimeout(poll, EVERY_MS);
