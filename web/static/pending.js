// A page whose sections are still being prepared: fetches them.

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

/** A section marked `data-pending` is not complete yet: ask until it is, and leave the others as they are. */
async function poll() {
  const page = document.querySelector("[data-parts]");
  if (!page.querySelector("[data-pending]")) return;
  try {
    const response = await fetch(page.dataset.parts, { signal: AbortSignal.timeout(PATIENCE_MS) });
    const fresh = document.createElement("template");
    if (response.status === 401) dispatchEvent(new Event("signed-out"));
    if (response.ok) fresh.innerHTML = await response.text();
    for (const section of fresh.content.querySelectorAll("section")) {
      const old = page.querySelector(`#${section.id}[data-pending]`);
      if (!old || old.isEqualNode(section)) continue;
      old.replaceWith(section);
    }
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  setTimeout(poll, EVERY_MS);
}

setTimeout(poll, EVERY_MS);
