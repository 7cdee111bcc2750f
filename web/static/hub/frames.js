// A film that comes piece by piece: the first bytes of its HTJ2K codestream are the whole film, softly; the more there are, the
// sharper it is, up to every gray of it. Each byte is asked for once (HTTP Range, RFC 9110 14), also after a cut.

const AGAIN_MS = 500; // the clinic may still be sending
const LEAST = 16384; // fewer bytes show nothing
const GROWTH = 2; // what is worth decoding anew

const start = () => new Worker(new URL("htj2k.js", import.meta.url).href + new URL(import.meta.url).search);
let ready = start();

/** The film that these first bytes of a codestream are. */
function decoded(decoder, bytes) {
  return new Promise((done, failed) => {
    decoder.onmessage = ({ data }) => (data.error ? failed(new Error(data.error)) : done(data));
    decoder.onerror = () => failed(new Error("no decoder"));
    decoder.postMessage({ bytes });
  });
}

/** The film again and again, each time from more of its bytes; `upto` says how many are wanted by now, and may grow. */
export async function* frames(url, upto) {
  const decoder = ready ?? start(); // two films side by side have one each
  ready = null;
  let [bytes, have, shown] = [new Uint8Array(), 0, 0];
  const due = (least) => (have === bytes.length ? have > shown : have >= Math.max(LEAST, least));
  const film = async () => {
    shown = have;
    return { ...(await decoded(decoder, bytes.slice(0, have))), have, size: bytes.length };
  };
  while (!have || have < bytes.length) {
    const wanted = Math.min(upto(), bytes.length || Infinity);
    if (have < wanted && !document.hidden) {
      const response = await fetch(url, { headers: { Range: `bytes=${have}-${wanted - 1}` } }).catch(() => null);
      if (response?.status === 401) dispatchEvent(new Event("signed-out"));
      else if (response && response.status !== 206 && response.status !== 416) throw new Error(response.status);
      const size = Number(response?.headers.get("Content-Range")?.split("/")[1]);
      if (size && !bytes.length) bytes = new Uint8Array(size);
      const reader = response?.status === 206 ? response.body.getReader() : null;
      const part = () => reader?.read().catch(() => null); // cut off in the middle: what came is kept
      for (let read; (read = await part()) && !read.done; ) {
        bytes.set(read.value, have);
        have += read.value.length;
        if (due(shown * GROWTH)) yield await film();
      }
      if (have && due(shown + 1)) yield await film();
    }
    if (!have || have < bytes.length) await new Promise((done) => setTimeout(done, AGAIN_MS));
  }
}
