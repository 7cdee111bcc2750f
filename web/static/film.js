// The film page: fetches what is still being prepared.

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

/** A section marked `data-pending` is not complete yet: ask until it is, and leave the others as they are. */
async function poll() {
  const film = document.querySelector(".film");
  if (!film.querySelector("[data-pending]")) return;
  try {
    const response = await fetch(film.dataset.url, { signal: AbortSignal.timeout(PATIENCE_MS) });
    const fresh = document.createElement("template");
    if (response.status === 401) dispatchEvent(new Event("signed-out"));
    if (response.ok) fresh.innerHTML = await response.text();
    for (const section of fresh.content.querySelectorAll("section")) {
      const old = film.querySelector(`#${section.id}[data-pending]`);
      if (!old || old.isEqualNode(section)) continue;
      old.replaceWith(section);
    }
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  setTimeout(poll, EVERY_MS);
}

setTimeout(poll, EVERY_MS);
