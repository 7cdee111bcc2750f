// Makes the pages an app on the tablet, brings a page that is shown without the box up to date once the box answers again, and
// closes the menus of the bar.

const EVERY_MS = 2000;

navigator.serviceWorker?.register("/worker.js").catch(() => {}); // without TLS there is none, and the pages work all the same

async function poll() {
  try {
    const response = await fetch("/health", { signal: AbortSignal.timeout(EVERY_MS) });
    if (response.ok) return location.reload();
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  setTimeout(poll, EVERY_MS);
}

if (document.querySelector(".asof:not([hidden])")) poll();

for (const kind of ["click", "keydown"]) {
  addEventListener(kind, (event) => {
    if (kind === "keydown" && event.key !== "Escape") return;
    const open = document.querySelector(".top details[open]");
    if (!open || (kind === "click" && open.contains(event.target))) return;
    open.open = false;
    if (kind === "keydown") open.querySelector("summary").focus();
  });
}
