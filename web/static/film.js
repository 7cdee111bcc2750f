// The film page: fetches what is still being prepared, and sets the strength of the heat map.

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;

function map() {
  const opacity = document.getElementById("opacity");
  const picture = document.querySelector(".map");
  if (!opacity || !picture) return;
  const slider = opacity.querySelector("input");
  const apply = () => (picture.style.opacity = slider.value / 100);
  slider.addEventListener("input", apply);
  for (const button of opacity.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      slider.value = Number(slider.value) + Number(button.dataset.step);
      apply();
    });
  }
  opacity.hidden = false;
  apply();
}

/** A section marked `data-pending` is not complete yet: ask until it is, and leave the others as they are. */
async function poll() {
  const film = document.querySelector(".film");
  if (!film.querySelector("[data-pending]")) return;
  try {
    const response = await fetch(film.dataset.url, { signal: AbortSignal.timeout(PATIENCE_MS) });
    const fresh = document.createElement("template");
    if (response.ok) fresh.innerHTML = await response.text();
    for (const section of fresh.content.querySelectorAll("section")) {
      const old = film.querySelector(`#${section.id}[data-pending]`);
      if (!old || old.isEqualNode(section)) continue;
      old.replaceWith(section);
      if (section.id === "picture") map();
    }
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  setTimeout(poll, EVERY_MS);
}

map();
setTimeout(poll, EVERY_MS);
