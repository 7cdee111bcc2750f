// Calls for immediate films, on every page, until a person says that they know of them: by sight, and by three rising tones.

const EVERY_MS = 2000;
const AGAIN_MS = 20000;

const alerts = document.getElementById("alerts");
let etag = null;
let last = 0;
let audio = null;

/** Three rising tones twice, unlike any telephone; false where the browser keeps the sound off until it is touched. */
async function sound() {
  audio ??= new AudioContext();
  if (audio.state !== "running") await Promise.race([audio.resume(), new Promise((done) => setTimeout(done, 300))]);
  if (audio.state !== "running") return false;
  for (let tone = 0; tone < 6; tone += 1) {
    const at = audio.currentTime + 0.22 * tone + (tone > 2 ? 0.3 : 0);
    const [oscillator, volume] = [audio.createOscillator(), audio.createGain()];
    oscillator.frequency.value = [660, 880, 1175][tone % 3];
    volume.gain.setValueAtTime(0, at);
    volume.gain.linearRampToValueAtTime(0.9, at + 0.02);
    volume.gain.linearRampToValueAtTime(0, at + 0.2);
    oscillator.connect(volume).connect(audio.destination);
    oscillator.start(at);
    oscillator.stop(at + 0.2);
  }
  return true;
}

async function call() {
  const open = alerts.querySelectorAll("[data-alert]").length;
  const mute = alerts.querySelector(".mute");
  if (!open) {
    mute.hidden = true;
    last = 0;
  } else if (Date.now() - last > AGAIN_MS) {
    last = Date.now();
    mute.hidden = await sound();
  }
}

function show(text) {
  const fresh = document.createElement("template");
  fresh.innerHTML = text;
  const known = new Set([...alerts.querySelectorAll("[data-alert]")].map((alert) => alert.dataset.alert));
  const now = [...fresh.content.querySelectorAll("[data-alert]")].map((alert) => alert.dataset.alert);
  if (now.length === known.size && now.every((alert) => known.has(alert))) return;
  if (now.some((alert) => !known.has(alert))) last = 0;
  alerts.replaceChildren(fresh.content);
}

async function poll() {
  try {
    const response = await fetch(alerts.dataset.url, {
      headers: etag ? { "If-None-Match": etag } : {},
      signal: AbortSignal.timeout(5000),
    });
    if (response.status === 401) dispatchEvent(new Event("signed-out"));
    if (response.status === 200) {
      show(await response.text());
      etag = response.headers.get("ETag");
    }
  } catch {
    // the box is restarting or out of reach: the next poll tells
  }
  await call();
  setTimeout(poll, EVERY_MS);
}

alerts.addEventListener("click", (event) => {
  if (event.target.closest(".mute")) {
    last = 0;
    call();
  }
});
document.getElementById("sound")?.addEventListener("click", sound);
call();
setTimeout(poll, EVERY_MS);
