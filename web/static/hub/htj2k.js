// Decodes HTJ2K codestreams (ISO/IEC 15444-15) beside the page, also those of which only the first bytes are there: what is missing
// counts as zero, so a film is whole and soft at first. Gets { bytes }, gives { rows, columns, values }, or { error }.

/* global Module */
importScripts(`openjphjs.js${location.search}`);

const decoding = Module({ locateFile: (name) => new URL(name + location.search, location.href).href });

addEventListener("message", async ({ data }) => {
  const { HTJ2KDecoder } = await decoding;
  const decoder = new HTJ2KDecoder();
  try {
    decoder.getEncodedBuffer(data.bytes.length).set(data.bytes);
    decoder.decode();
    const { width: columns, height: rows, bitsPerSample } = decoder.getFrameInfo();
    const plain = decoder.getDecodedBuffer(); // lies in the decoder's memory, which the next film uses again
    if (bitsPerSample !== 16) throw new Error("not a 16-bit gray film");
    const values = new Uint16Array(plain.buffer, plain.byteOffset, rows * columns).slice();
    postMessage({ rows, columns, values }, [values.buffer]);
  } catch (error) {
    postMessage({ error: String(error) });
  } finally {
    decoder.delete();
  }
});
