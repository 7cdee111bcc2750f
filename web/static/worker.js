// What a tablet keeps of the box: the pages' own files; and of the person who is signed in now, the last worklist and the film that
// is open. The box is always asked first. What is shown without it says so, and from when it is. Nothing is kept of anybody else:
// an answer for another person, or for nobody, empties it, and so does a tablet that nobody has touched until it locks.

const FILES = `files-${VERSION}`;
const KEPT = "kept";
const PERSON = "/person";
const AWAY = "/away";
const PATIENCE_MS = 8000;

addEventListener("install", (event) => event.waitUntil(install()));
addEventListener("activate", (event) => event.waitUntil(activate()));
addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (url.origin !== location.origin) return;
  if (request.method !== "GET") {
    if (request.mode === "navigate") event.waitUntil(forget());
    else if (url.pathname === "/present") event.waitUntil(touched());
  } else if (url.pathname.startsWith("/static/")) event.respondWith(file(request));
  else if (request.mode === "navigate") event.respondWith(page(event, url));
  else if (/^\/worklist$|^\/alerts$|^\/films\/\d+\/(film|preview)\.png$/.test(url.pathname)) event.respondWith(part(event, url));
});

async function install() {
  await (await caches.open(FILES)).addAll([AWAY, ...STATIC]);
  await skipWaiting();
}

async function activate() {
  for (const name of await caches.keys()) if (name !== FILES && name !== KEPT) await caches.delete(name);
  await clients.claim();
}

/** The answer of the box. Rejects when there is none in time. */
const ask = (request) =>
  Promise.race([fetch(request), new Promise((_, reject) => setTimeout(() => reject(new Error("away")), PATIENCE_MS))]);

async function file(request) {
  const cache = await caches.open(FILES);
  const kept = await cache.match(request);
  if (kept) return kept;
  try {
    return await ask(request);
  } catch (error) {
    const old = await cache.match(request, { ignoreSearch: true });
    if (old) return old;
    throw error;
  }
}

const forget = () => caches.delete(KEPT);

async function person() {
  const kept = await (await caches.open(KEPT)).match(PERSON);
  return kept ? kept.json() : null;
}

/** Somebody is at the tablet. */
async function touched(tag) {
  const known = tag ?? (await person())?.tag;
  if (known) await (await caches.open(KEPT)).put(PERSON, new Response(JSON.stringify({ tag: known, at: Date.now() })));
}

/** Whether the answer is for somebody who is signed in; whatever was kept of anybody else is forgotten. */
async function mind(response) {
  if (response.type === "opaqueredirect" || response.status >= 500) return false;
  const tag = response.headers.get("Outpost-Person");
  const known = await person();
  if (known && known.tag !== tag) await forget();
  if (tag && known?.tag !== tag) {
    await touched(tag);
    await (await caches.open(FILES)).add(AWAY).catch(() => {}); // in this person's language
  }
  return Boolean(tag);
}

/** Keep an answer that was got; of films, only the one that is open. */
async function keep(url, response) {
  const cache = await caches.open(KEPT);
  const film = url.pathname.match(/^\/films\/\d+/)?.[0];
  if (url.pathname === "/" || film)
    for (const { url: old } of await cache.keys()) {
      const { pathname } = new URL(old);
      if (pathname.startsWith("/films/") && !`${pathname}/`.startsWith(`${film}/`)) await cache.delete(old);
    }
  if (response.status === 200 && (!url.search || film)) await cache.put(url.pathname, response);
}

async function page(event, url) {
  try {
    const response = await ask(event.request);
    const copy = response.clone();
    event.waitUntil(mind(response).then(async (own) => own && ((await touched()), await keep(url, copy))));
    return response;
  } catch {
    return (await shown(url)) ?? (await caches.match(AWAY)) ?? Response.error();
  }
}

/** A kept page, marked as such; none where the tablet would have locked. */
async function shown(url) {
  const known = await person();
  if (!known || Math.abs(Date.now() - known.at) > LOCK_MS) return void (await forget());
  const cache = await caches.open(KEPT);
  const kept = await cache.match(url.pathname);
  if (!kept) return undefined;
  let html = await kept.text();
  const rows = url.pathname === "/" && (await (await cache.match("/worklist"))?.text());
  if (rows) html = html.replace(/<!--rows-->[^]*<!--\/rows-->/, () => rows);
  return new Response(html.replaceAll('class="flag conflict asof" hidden', 'class="flag conflict asof"'), { headers: kept.headers });
}

async function part(event, url) {
  try {
    const response = await ask(event.request);
    const copy = response.clone();
    event.waitUntil(mind(response).then((own) => own && url.pathname !== "/alerts" && keep(url, copy)));
    return response;
  } catch (error) {
    const kept = url.pathname.endsWith(".png") && (await (await caches.open(KEPT)).match(url.pathname));
    if (kept) return kept;
    throw error;
  }
}
