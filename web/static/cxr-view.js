// <cxr-view>: a radiograph at its full 16 bits, windowed on the tablet. Touch, mouse, keyboard and buttons can all do everything.
//
// The page renders the element with its canvases and, in the same .viewer, its controls; this file gives them life. A control
// says what it does in data-do. Nothing here is mirrored in right-to-left pages: left of the film stays left.

const WHITE = 65535;
const BEFORE_DATA = 41; // bytes: what a PNG begins with, its header, and what its data begins with
const MOVING_MS = 400; // while frames follow each other closer than this, or than four take, they are drawn rough, then once more fine

/**
 * The pixels of a film's 16-bit gray PNG (RFC 2083), which browsers would cut down to 8 bits; undone while it comes. The box
 * writes it (`edge/stages/png.py`) in one chunk, each line less the one above.
 */
async function read16(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${response.status}`);
  const head = new Uint8Array(BEFORE_DATA);
  let [got, left, columns, rows] = [0, 0, 0, 0];
  const data = new TransformStream({
    transform(part, to) {
      if (got < head.length) {
        const first = part.subarray(0, head.length - got);
        head.set(first, got);
        got += first.length;
        part = part.subarray(first.length);
        if (got < head.length) return;
        const view = new DataView(head.buffer);
        if (head[24] !== 16 || head[25] !== 0 || head[28] !== 0) throw new Error("not a 16-bit gray PNG");
        [columns, rows, left] = [view.getUint32(16), view.getUint32(20), view.getUint32(33)];
      }
      part = part.subarray(0, left);
      left -= part.length;
      if (part.length) to.enqueue(part);
    },
  });
  const reader = response.body.pipeThrough(data).pipeThrough(new DecompressionStream("deflate")).getReader();
  let [values, line, bytes, above, turned, words, row, at] = [null, null, null, null, null, null, 0, -1];
  for (;;) {
    const { done, value: part } = await reader.read();
    if (done) break;
    if (!values) {
      values = new Uint16Array(rows * columns);
      [line, above, turned] = [0, 0, 0].map(() => new Uint32Array((columns + 1) >> 1)); // four bytes at a time
      [bytes, words] = [new Uint8Array(line.buffer, 0, 2 * columns), new Uint16Array(turned.buffer, 0, columns)];
    }
    for (let i = 0; i < part.length; ) {
      if (at < 0) {
        if (part[i] !== 2) throw new Error("a PNG of somebody else");
        [i, at] = [i + 1, 0];
        continue;
      }
      const some = part.subarray(i, i + bytes.length - at);
      bytes.set(some, at);
      [i, at] = [i + some.length, at + some.length];
      if (at < bytes.length) continue;
      for (let k = 0; k < line.length; k += 1) {
        const a = line[k];
        const b = above[k];
        const sum = ((a & 0x7f7f7f7f) + (b & 0x7f7f7f7f)) ^ ((a ^ b) & 0x80808080);
        above[k] = sum;
        turned[k] = ((sum & 0x00ff00ff) << 8) | ((sum >>> 8) & 0x00ff00ff); // PNG has the high byte first, a tablet the low one
      }
      values.set(words, row * columns);
      [row, at] = [row + 1, -1];
    }
  }
  if (row < rows) throw new Error("cut off");
  return { rows, columns, values };
}

const VERTEX = `#version 300 es
in vec2 corner; void main() { gl_Position = vec4(corner, 0.0, 1.0); }`;

// the screen's pixel is taken back to the film; between four pixels it is interpolated, over many it is averaged
const FRAGMENT = `#version 300 es
precision highp float; precision highp usampler2D;
uniform usampler2D film; uniform mat3 back; uniform vec2 size; uniform vec2 shown; uniform vec2 level; uniform float inverted; uniform float most;
out vec4 color;
float at(ivec2 p) { return float(texelFetch(film, clamp(p, ivec2(0), ivec2(size) - 1), 0).r); }
float smoothly(vec2 p) {
  vec2 q = p - 0.5; ivec2 i = ivec2(floor(q)); vec2 f = q - floor(q);
  return mix(mix(at(i), at(i + ivec2(1, 0)), f.x), mix(at(i + ivec2(0, 1)), at(i + 1), f.x), f.y);
}
void main() {
  vec2 screen = vec2(gl_FragCoord.x, shown.y - gl_FragCoord.y);
  vec2 p = (back * vec3(screen, 1.0)).xy;
  if (any(lessThan(p, vec2(0.0))) || any(greaterThanEqual(p, size))) { color = vec4(0.0, 0.0, 0.0, 1.0); return; }
  vec2 across = (back * vec3(1.0, 0.0, 0.0)).xy; vec2 down = (back * vec3(0.0, 1.0, 0.0)).xy;
  int n = int(clamp(ceil(length(across)), 1.0, most));
  float sum = 0.0;
  for (int i = 0; i < n; i++) for (int j = 0; j < n; j++)
    sum += smoothly(p + across * ((float(i) + 0.5) / float(n) - 0.5) + down * ((float(j) + 0.5) / float(n) - 0.5));
  float gray = clamp((sum / float(n * n) - level.x) / level.y + 0.5, 0.0, 1.0);
  color = vec4(vec3(mix(gray, 1.0 - gray, inverted)), 1.0);
}`;

/** Draws with WebGL2; null where the browser has none, or where the film is larger than its textures. */
function glPainter(canvas, film) {
  const gl = canvas.getContext("webgl2", { alpha: false });
  if (!gl || Math.max(film.rows, film.columns) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  const corner = gl.getAttribLocation(program, "corner");
  gl.enableVertexAttribArray(corner);
  gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 2);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
  let loaded = null;
  const place = (name) => gl.getUniformLocation(program, name);
  return ({ matrix, center, width, inverted, rough }) => {
    if (loaded !== film.values) {
      loaded = film.values;
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, film.columns, film.rows, 0, gl.RED_INTEGER, gl.UNSIGNED_SHORT, loaded);
    }
    const m = matrix.inverse();
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.uniformMatrix3fv(place("back"), false, [m.a, m.b, 0, m.c, m.d, 0, m.e, m.f, 1]);
    gl.uniform2f(place("size"), film.columns, film.rows);
    gl.uniform2f(place("shown"), canvas.width, canvas.height);
    gl.uniform2f(place("level"), center, width);
    gl.uniform1f(place("inverted"), inverted ? 1 : 0);
    gl.uniform1f(place("most"), rough ? 1 : 6);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  };
}

/** Draws with a 2-D canvas, where there is no WebGL2: the window is a table of 65,536 grays. */
function plainPainter(canvas, film) {
  const context = canvas.getContext("2d", { alpha: false });
  const sheet = new OffscreenCanvas(film.columns, film.rows);
  const inside = sheet.getContext("2d", { alpha: false });
  const picture = inside.createImageData(film.columns, film.rows);
  const pixels = new Uint32Array(picture.data.buffer);
  const table = new Uint32Array(WHITE + 1);
  let [loaded, windowed] = [null, ""];
  return ({ matrix, center, width, inverted }) => {
    if (loaded !== film.values || windowed !== `${center} ${width} ${inverted}`) {
      [loaded, windowed] = [film.values, `${center} ${width} ${inverted}`];
      for (let value = 0; value <= WHITE; value += 1) {
        const share = Math.min(1, Math.max(0, (value - center) / width + 0.5));
        const gray = Math.round(255 * (inverted ? 1 - share : share));
        table[value] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
      }
      for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[film.values[i]];
      inside.putImageData(picture, 0, 0);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(matrix);
    context.imageSmoothingQuality = "high";
    context.drawImage(sheet, 0, 0);
  };
}

/** Windows that people ask for by name, from the film's own distribution of grays. */
function presets(values) {
  const counts = new Uint32Array(WHITE + 1);
  const step = 1 + 2 * Math.floor(values.length / 2e6); // a million of them tell as much as all
  for (let i = 0; i < values.length; i += step) counts[values[i]] += 1;
  const total = Math.ceil(values.length / step);
  const level = (share) => {
    let [sum, value] = [0, 0];
    while (value < WHITE && (sum += counts[value]) < share * total) value += 1;
    return value;
  };
  const between = (low, high) => [(low + high) / 2, Math.max(64, high - low)];
  return {
    lungs: between(level(0.02), level(0.65)),
    bones: between(level(0.4), level(0.999)),
    everything: between(level(0), level(1)),
  };
}

class CxrView extends HTMLElement {
  connectedCallback() {
    this.viewer = this.closest(".viewer");
    [this.canvas, this.over] = this.querySelectorAll("canvas");
    this.windows = JSON.parse(this.dataset.windows);
    [this.center, this.width] = this.windows[0];
    Object.assign(this, { zoom: 1, turns: 0, x: 0, y: 0, inverted: false, tool: "", drawn: 0, moving: MOVING_MS, handles: [], undone: [], pointers: new Map() });
    this.say = this.viewer.querySelector("output");
    this.viewer.addEventListener("click", (event) => this.do(event.target.closest("[data-do]")?.dataset.do));
    this.viewer.addEventListener("input", (event) => this.slide(event.target));
    this.addEventListener("keydown", (event) => this.key(event));
    this.addEventListener("pointerdown", (event) => this.down(event));
    // a tap is followed by a mousedown, on the handle that the tap has just moved there: it shall not choose that one again
    this.addEventListener("mousedown", (event) => event.target.closest(".handle") && event.preventDefault());
    this.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) this.addEventListener(end, (event) => this.up(event));
    this.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.addEventListener("dblclick", (event) => this.scale(2, ...this.point(event)));
    this.observer = new ResizeObserver(() => this.resize());
    this.load();
  }

  get map() {
    return this.viewer.querySelector("img.map"); // which may come later
  }

  disconnectedCallback() {
    this.observer.disconnect();
  }

  async load() {
    try {
      if (this.dataset.frames) await this.refine();
      else this.show(await read16(this.dataset.src));
    } catch {
      this.viewer.classList.add("failed"); // what was shown stays, and the page says so
    }
  }

  /** A film that comes piece by piece: as much of it as a read needs, and all of it once somebody asks for that. */
  async refine() {
    const { frames } = await import(this.dataset.frames);
    for await (const { have, size, ...film } of frames(this.dataset.src, () => (this.whole ? Infinity : Number(this.dataset.enough)))) {
      this.show(film);
      this.viewer.classList.toggle("rough", have < Math.min(size, Number(this.dataset.enough)));
      this.viewer.classList.toggle("exact", have === size);
      this.dispatchEvent(new CustomEvent("bytes", { bubbles: true, detail: { have, size } }));
    }
  }

  /** Show a film, or more of the same film in its place. */
  show(film) {
    const first = !this.film;
    this.film = Object.assign(this.film ?? {}, film);
    this.presets = presets(film.values);
    if (!first) return this.draw();
    this.paint = (!this.hasAttribute("plain") && glPainter(this.canvas, this.film)) || plainPainter(this.fresh(), this.film);
    this.observer.observe(this);
    this.fit();
    this.viewer.classList.add("ready");
    this.dispatchEvent(new Event("ready", { bubbles: true }));
  }

  /** A canvas that was asked for WebGL2 gives no 2-D context any more. */
  fresh() {
    const canvas = this.canvas.cloneNode();
    this.canvas.replaceWith(canvas);
    this.canvas = canvas;
    return canvas;
  }

  resize() {
    const density = devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.over]) {
      [canvas.width, canvas.height] = [Math.round(this.clientWidth * density), Math.round(this.clientHeight * density)];
    }
    if (this.fitted) this.fit();
    else this.draw();
  }

  get matrix() {
    return new DOMMatrix()
      .translate(this.canvas.width / 2 + this.x, this.canvas.height / 2 + this.y)
      .scale(this.zoom)
      .rotate(90 * this.turns)
      .translate(-this.film.columns / 2, -this.film.rows / 2);
  }

  draw() {
    if (!this.film || this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      const start = performance.now();
      const rough = start - this.drawn < this.moving;
      this.paint({ matrix: this.matrix, center: this.center, width: this.width, inverted: this.inverted, rough });
      this.drawn = performance.now();
      clearTimeout(this.settling);
      if (rough) this.settling = setTimeout(() => this.draw(), this.moving + 50);
      const told = () => (this.moving = Math.max(MOVING_MS, 2 * (performance.now() - start)));
      requestAnimationFrame(() => requestAnimationFrame(told)); // a graphics chip draws after it was told to: two frames later it has
      this.overlay();
      for (const [name, value] of [["brightness", WHITE - this.center], ["contrast", WHITE - this.width]]) {
        const slider = this.viewer.querySelector(`[name=${name}]`);
        if (slider) slider.value = value;
      }
      this.dispatchEvent(new CustomEvent("view", { bubbles: true }));
    });
  }

  overlay() {
    const context = this.over.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.over.width, this.over.height);
    if (this.map?.complete && this.viewer.querySelector("[name=map]")?.checked) {
      context.setTransform(this.matrix);
      context.globalAlpha = this.viewer.querySelector("[name=opacity]").value / 100;
      context.drawImage(this.map, 0, 0, this.film.columns, this.film.rows);
      context.globalAlpha = 1;
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.lines(context);
    for (const handle of this.handles) this.seat(handle);
  }

  lines(context) {
    const density = devicePixelRatio || 1;
    const at = this.handles.map(({ x, y }) => this.matrix.transformPoint({ x, y }));
    const pairs = this.tool === "length" ? [[0, 1]] : this.tool === "ratio" ? [[0, 1], [2, 3]] : [];
    for (const [color, wide] of [["#000", 5], ["#ffe14d", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = wide * density;
      context.beginPath();
      for (const [one, two] of pairs) {
        context.moveTo(at[one].x, at[one].y);
        context.lineTo(at[two].x, at[two].y);
      }
      context.stroke();
    }
  }

  /** Put a handle's button where its point of the film is on the screen. */
  seat({ x, y, button }) {
    const at = this.matrix.transformPoint({ x, y });
    const density = devicePixelRatio || 1;
    button.style.setProperty("left", `${at.x / density}px`);
    button.style.setProperty("top", `${at.y / density}px`);
  }

  point(event) {
    const box = this.getBoundingClientRect();
    const density = devicePixelRatio || 1;
    return [(event.clientX - box.left) * density, (event.clientY - box.top) * density];
  }

  fit() {
    const sides = this.turns % 2 ? [this.film.rows, this.film.columns] : [this.film.columns, this.film.rows];
    this.zoom = Math.min(this.canvas.width / sides[0], this.canvas.height / sides[1]);
    [this.x, this.y, this.fitted] = [0, 0, true];
    this.draw();
  }

  /** Zoom by a factor around a place on the screen, the middle if none is given. */
  scale(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const least = Math.min(1, this.canvas.width / this.film.columns / 2, this.canvas.height / this.film.rows / 2); // one to one, however small the film
    const zoom = Math.min(16, Math.max(least, this.zoom * factor));
    const real = zoom / this.zoom;
    this.x = (this.x - (x - this.canvas.width / 2)) * real + (x - this.canvas.width / 2);
    this.y = (this.y - (y - this.canvas.height / 2)) * real + (y - this.canvas.height / 2);
    [this.zoom, this.fitted] = [zoom, false];
    this.draw();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.fitted = false;
    this.draw();
  }

  window(center, width) {
    this.center = Math.min(WHITE, Math.max(0, center));
    this.width = Math.min(2 * WHITE, Math.max(64, width));
    this.draw();
  }

  do(what) {
    if (!what || !this.film) return;
    const step = Math.min(this.canvas.width, this.canvas.height) / 8;
    const [verb, detail] = what.split(":");
    const actions = {
      in: () => this.scale(1.4),
      out: () => this.scale(1 / 1.4),
      fit: () => this.fit(),
      whole: () => (this.whole = true),
      actual: () => this.scale(1 / this.zoom),
      left: () => this.pan(step, 0),
      right: () => this.pan(-step, 0),
      up: () => this.pan(0, step),
      down: () => this.pan(0, -step),
      turn: () => {
        this.turns = (this.turns + 1) % 4;
        this.fit();
      },
      invert: () => {
        this.inverted = !this.inverted;
        this.viewer.querySelector("[data-do=invert]")?.setAttribute("aria-pressed", this.inverted);
        this.draw();
      },
      window: () => this.window(...(this.presets[detail] ?? this.windows[Number(detail)] ?? this.windows[0])),
      brighter: () => this.window(this.center - this.width / 10, this.width),
      darker: () => this.window(this.center + this.width / 10, this.width),
      harder: () => this.window(this.center, this.width / 1.2),
      softer: () => this.window(this.center, this.width * 1.2),
      reset: () => {
        Object.assign(this, { turns: 0, inverted: false });
        this.measure("");
        this.window(...this.windows[0]);
        this.fit();
      },
      measure: () => this.measure(this.tool === detail ? "" : detail),
      side: () => this.side(detail),
    };
    actions[verb]?.();
  }

  slide(input) {
    if (input.name === "brightness") this.window(WHITE - Number(input.value), this.width);
    else if (input.name === "contrast") this.window(this.center, WHITE - Number(input.value));
    else if (input.name === "map" || input.name === "opacity") {
      if (!this.map.complete) this.map.addEventListener("load", () => this.draw(), { once: true });
      this.map.loading = "eager";
      this.draw();
    }
  }

  key(event) {
    const keys = {
      "+": "in", "=": "in", "-": "out", 0: "fit", 1: "actual", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up",
      ArrowDown: "down", r: "turn", i: "invert", b: "brighter", d: "darker", h: "harder", s: "softer", l: "measure:length",
      c: "measure:ratio", Escape: "measure:",
    };
    const handle = this.handles.find(({ button }) => button === event.target);
    const nudges = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (handle && nudges[event.key]) {
      const far = (event.shiftKey ? 10 : 1) / this.zoom;
      const back = new DOMMatrix().rotate(-90 * this.turns);
      const nudge = back.transformPoint({ x: nudges[event.key][0] * far, y: nudges[event.key][1] * far });
      this.place(handle, handle.x + nudge.x, handle.y + nudge.y);
    } else if (keys[event.key]) this.do(keys[event.key]);
    else return;
    event.preventDefault();
  }

  down(event) {
    if (!this.film || event.button > 0) return;
    const handle = this.handles.find(({ button }) => button === event.target);
    this.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { at: this.point(event), from: this.point(event), handle });
    if (handle) handle.button.focus();
  }

  move(event) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const [x, y] = this.point(event);
    const [oldX, oldY] = pointer.at;
    const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    pointer.at = [x, y];
    if (pointer.handle) {
      const on = this.matrix.inverse().transformPoint({ x, y });
      this.place(pointer.handle, on.x, on.y);
    } else if (other) {
      const far = (one) => Math.hypot(one[0] - other.at[0], one[1] - other.at[1]);
      this.pan((x - oldX) / 2, (y - oldY) / 2);
      if (far([oldX, oldY]) > 1) this.scale(far([x, y]) / far([oldX, oldY]), (x + other.at[0]) / 2, (y + other.at[1]) / 2);
    } else this.pan(x - oldX, y - oldY);
  }

  up(event) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!pointer || pointer.handle || !this.handles.length || event.type === "pointercancel") return;
    if (Math.hypot(pointer.at[0] - pointer.from[0], pointer.at[1] - pointer.from[1]) > 12) return;
    const [x, y] = pointer.at; // a tap: the chosen handle goes there, and the next one is chosen
    const on = this.matrix.inverse().transformPoint({ x, y });
    this.place(this.handles[this.next], on.x, on.y);
    this.next = (this.next + 1) % this.handles.length;
    this.handles[this.next].button.focus();
  }

  wheel(event) {
    if (!this.film) return;
    event.preventDefault();
    this.scale(Math.exp(-event.deltaY / 400), ...this.point(event));
  }

  /** Start a measure with its handles in the middle of the screen, or end it. */
  measure(tool) {
    for (const { button } of this.handles) button.remove();
    this.tool = tool;
    this.next = 0;
    const places = { length: [[0.35, 0.5], [0.65, 0.5]], ratio: [[0.4, 0.6], [0.6, 0.6], [0.25, 0.7], [0.75, 0.7]] }[tool] ?? [];
    const labels = (this.dataset[`handles${tool}`] ?? "").split("|");
    this.handles = places.map(([across, down], index) => {
      const on = this.matrix.inverse().transformPoint({ x: across * this.canvas.width, y: down * this.canvas.height });
      const button = document.createElement("button");
      button.type = "button";
      button.className = "handle";
      button.setAttribute("aria-label", labels[index]);
      button.addEventListener("focus", () => (this.next = index));
      this.append(button);
      return { x: on.x, y: on.y, button };
    });
    for (const control of this.viewer.querySelectorAll("[data-do^=measure]")) {
      control.setAttribute("aria-pressed", tool !== "" && control.dataset.do === `measure:${tool}`);
    }
    this.handles[0]?.button.focus();
    this.tell();
    this.draw();
  }

  place(handle, x, y) {
    handle.x = Math.min(this.film.columns, Math.max(0, x));
    handle.y = Math.min(this.film.rows, Math.max(0, y));
    this.tell();
    this.draw();
  }

  /** Say what is measured, in the page's own words. */
  tell() {
    const [one, two, three, four] = this.handles;
    const number = (value, digits) => new Intl.NumberFormat(document.documentElement.lang, { maximumFractionDigits: digits }).format(value);
    if (this.tool === "length") {
      const pixels = Math.hypot(one.x - two.x, one.y - two.y);
      const side = Number(this.dataset.millimetres);
      this.say.textContent = side
        ? this.dataset.saylength.replace("{}", number(pixels * side, 0))
        : this.dataset.saypixels.replace("{}", number(pixels, 0));
    } else if (this.tool === "ratio") {
      const across = (a, b) => Math.abs(this.turns % 2 ? a.y - b.y : a.x - b.x);
      const ratio = across(one, two) / across(three, four);
      this.say.textContent = this.dataset.sayratio.replace("{}", Number.isFinite(ratio) ? number(ratio, 2) : "–");
    } else this.say.textContent = "";
  }

  /** A person marks which side of the picture is the patient's left or right; it is drawn, never stored in the film. */
  side(letter) {
    const marker = this.querySelector(".marker");
    marker.hidden = !letter;
    marker.textContent = letter ?? "";
    for (const control of this.viewer.querySelectorAll("[data-do^=side]")) {
      control.setAttribute("aria-pressed", control.dataset.do === `side:${letter}`);
    }
  }
}

customElements.define("cxr-view", CxrView);

// two films side by side: what is done to one can be done to the other
const link = document.querySelector("[name=linked]");
addEventListener("view", ({ target }) => {
  if (!link?.checked || target.following) return;
  for (const other of document.querySelectorAll("cxr-view")) {
    if (other === target || !other.film) continue;
    const size = (view) => Math.min(view.canvas.width / view.film.columns, view.canvas.height / view.film.rows);
    other.following = true;
    Object.assign(other, { zoom: (target.zoom / size(target)) * size(other), x: target.x, y: target.y, turns: target.turns, fitted: target.fitted });
    other.draw();
    requestAnimationFrame(() => requestAnimationFrame(() => (other.following = false)));
  }
});
