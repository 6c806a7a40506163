// The viewer of a report. Label maps come as opaque PNGs whose pixel value is the class number, so that classes with
// equal colours stay distinct; colours are put on here. No request leaves the page.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const readJson = (id) => JSON.parse(byId(id).textContent);
  const page = readJson("report-data");
  const tones = Object.fromEntries(page.labelSets.map(({ key, tone }) => [key, tone])); // classes of the style sheet
  const names = Object.fromEntries(page.labelSets.map(({ key, name }) => [key, name]));
  const furtherSets = Object.keys(names).filter((key) => key.startsWith("further-"));
  const NUM_CACHED = Math.ceil(192 / Math.max(3, page.labelSets.length)); // decoded frames kept; 64 of 1 MB with 3 panels
  const VOID_NAME = "void";
  const canvases = Object.fromEntries(
    [...document.querySelectorAll("canvas[data-panel]")].map((canvas) => [canvas.dataset.panel, canvas]),
  );
  const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const layers = Object.fromEntries(
    [...document.querySelectorAll("input[data-layer]")].map((input) => [input.dataset.layer, input]),
  );
  const slider = byId("frame-slider");
  const view = { x: 0, y: 0, zoom: 1 }; // left upper corner in picture pixels
  let clip = null;
  let shown = null; // decoded frame on the canvases: {position, maps: {panel: ids}, picture}
  let wanted = 0; // number of the latest request, so that late decodes do not overtake it
  let isolated = null; // class shown alone
  let pointer = null; // pixel under the mouse
  let playing = null; // names the playback that may go on
  let cache = new Map();

  // ---- decoding

  function toBlob(uri) {
    const [head, body] = uri.split(",");
    return new Blob([Uint8Array.from(atob(body), (c) => c.charCodeAt(0))], { type: head.slice(5).split(";")[0] });
  }

  async function decodeIds(uri, isWide = page.isWide) {
    const exact = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const bitmap = await createImageBitmap(toBlob(uri), exact);
    scratch.canvas.width = bitmap.width;
    scratch.canvas.height = bitmap.height;
    scratch.drawImage(bitmap, 0, 0);
    const { data } = scratch.getImageData(0, 0, bitmap.width, bitmap.height);
    bitmap.close();
    const ids = new Uint16Array(data.length / 4);
    for (let i = 0; i < ids.length; i++) ids[i] = isWide ? data[4 * i] + 256 * data[4 * i + 1] : data[4 * i];
    return ids;
  }

  async function decodeFrame(position) {
    const frame = clip.frames[position];
    const maps = {};
    for (const panel of clip.panels) if (frame[panel]) maps[panel] = await decodeIds(frame[panel]);
    const picture = frame.picture ? await createImageBitmap(toBlob(frame.picture)) : null;
    return { position, maps, picture };
  }

  function frameAt(position) {
    if (!cache.has(position)) {
      cache.set(position, decodeFrame(position));
      if (cache.size > NUM_CACHED) cache.delete(cache.keys().next().value);
    }
    return cache.get(position);
  }

  async function checkCanvas() {
    const ids = await decodeIds(page.probe, false);
    byId("canvas-warning").hidden = ids.every((id, i) => id === i);
  }

  // ---- drawing

  const nameOf = (id) => (id < page.classes.length ? page.classes[id].name : VOID_NAME);
  const colorOf = (id) => (id < page.classes.length ? page.classes[id].color : [0, 0, 0]);
  const cssColor = (id) => `rgb(${colorOf(id).join(",")})`;
  const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // RGBA, little endian
  const colorTable = new Uint32Array(page.ignore + 1).map((_, id) => packed(colorOf(id)));
  const cssHex = (name) => {
    const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  };

  function labelLayer(ids, pixels) {
    for (let i = 0; i < ids.length; i++) pixels[i] = isolated === null || ids[i] === isolated ? colorTable[ids[i]] : 0;
  }

  function contourLayer(ids, pixels, width, inClassColor) {
    const white = packed([255, 255, 255]);
    for (let i = 0; i < ids.length; i++) {
      const x = i % width;
      const isEdge =
        (x + 1 < width && ids[i] !== ids[i + 1]) || (x > 0 && inClassColor && ids[i] !== ids[i - 1]) ||
        (i + width < ids.length && ids[i] !== ids[i + width]) || (inClassColor && i >= width && ids[i] !== ids[i - width]);
      const isWanted = isolated === null || ids[i] === isolated;
      pixels[i] = isEdge && isWanted ? (inClassColor ? colorTable[ids[i]] : white) : 0;
    }
  }

  // Which pixels a panel changed against the base labels and, where the truth is known, whether that was right. On the
  // base labels it shows what the run changed.
  function changeKinds({ base, truth, ...maps }, panel) {
    const refined = maps[panel === "base" ? "refined" : panel];
    if (panel === "truth" || !base || !refined) return null;
    const kinds = new Uint8Array(base.length); // 0 same, 1 corrected, 2 made worse, 3 changed otherwise
    for (let i = 0; i < kinds.length; i++) {
      if (base[i] === refined[i]) continue;
      kinds[i] = truth && truth[i] === refined[i] ? 1 : truth && truth[i] === base[i] ? 2 : 3;
    }
    return kinds;
  }

  function changedLayer(kinds, pixels) {
    const colors = [0, ...["--fixed", "--worse", "--other"].map((name) => packed(cssHex(name)))];
    for (let i = 0; i < kinds.length; i++) pixels[i] = colors[kinds[i]];
  }

  function draw() {
    if (!shown) return;
    const [width, height] = clip.size;
    for (const panel of clip.panels) {
      const canvas = canvases[panel];
      const context = canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, width, height);
      context.setTransform(view.zoom, 0, 0, view.zoom, -view.x * view.zoom, -view.y * view.zoom);
      context.imageSmoothingEnabled = true;
      if (layers.picture.checked && shown.picture) context.drawImage(shown.picture, 0, 0, width, height);
      canvas.parentElement.classList.toggle("zoomed", view.zoom > 1);
      const ids = shown.maps[panel];
      sayWhatIsMissing(canvas.parentElement.querySelector(".no-picture"), Boolean(ids));
      if (!ids) continue;
      const kinds = layers.changed.checked ? changeKinds(shown.maps, panel) : null;
      const put = (paint, opacity) => {
        const image = new ImageData(width, height);
        paint(new Uint32Array(image.data.buffer));
        scratch.canvas.width = width;
        scratch.canvas.height = height;
        scratch.putImageData(image, 0, 0);
        context.imageSmoothingEnabled = false;
        context.globalAlpha = opacity;
        context.drawImage(scratch.canvas, 0, 0);
        context.globalAlpha = 1;
      };
      const isFilled = layers.labels.checked;
      const dimmed = kinds ? 0.35 : 1; // class colours may look like those of the changes
      if (isFilled) put((pixels) => labelLayer(ids, pixels), dimmed * Number(byId("opacity").value));
      if (layers.contours.checked) put((pixels) => contourLayer(ids, pixels, width, !isFilled), 1);
      if (kinds) put((pixels) => changedLayer(kinds, pixels), 1);
    }
    drawChangedKey(layers.changed.checked ? changeKinds(shown.maps, "refined") : null);
    drawHover();
  }

  function sayWhatIsMissing(note, hasLabels) {
    const isPictureMissing = layers.picture.checked && !shown.picture;
    note.hidden = hasLabels && !isPictureMissing;
    const what = hasLabels ? "no picture stored" : isPictureMissing ? "no labels and no picture" : "no labels";
    note.textContent = `${what} for this frame`;
  }

  function drawChangedKey(kinds) {
    const key = byId("changed-key");
    key.hidden = !kinds;
    if (!kinds) return;
    const counts = [0, 0, 0, 0];
    for (const kind of kinds) counts[kind]++;
    const texts = shown.maps.truth
      ? [["--fixed", "corrected", 1], ["--worse", "made worse", 2], ["--other", "other changes", 3]]
      : [["--other", "changed", 3]];
    key.replaceChildren(
      `Changed pixels in this frame${furtherSets.length ? ` (${names.refined})` : ""}:`,
      ...texts.flatMap(([color, text, kind]) => [
        element("span", { className: "key", style: `background:var(${color})` }),
        `${text} ${percent(counts[kind] / kinds.length)}`,
      ]),
    );
  }

  // ---- small helpers for the document

  function element(tag, properties = {}, ...children) {
    const { style, data, ...rest } = properties;
    const node = Object.assign(document.createElement(tag), rest);
    if (style) node.style.cssText = style;
    Object.assign(node.dataset, data || {});
    node.append(...children); // strings become text, never markup
    return node;
  }

  const isNumber = (value) => typeof value === "number";
  const percent = (value, digits = 1) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "–");
  const mean = (values) => {
    const known = (values || []).filter(isNumber);
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
  };

  // ---- frames and playback

  async function show(position) {
    const request = ++wanted;
    slider.value = position;
    const frame = await frameAt(position);
    if (request !== wanted) return;
    shown = frame;
    const { name, index, time } = clip.frames[position];
    const text = [`frame ${name}`, `${index + 1} of ${clip.total}`];
    if (isNumber(time)) text.push(`${time.toFixed(2)} s`);
    byId("frame-name").value = text.join(" · ");
    slider.setAttribute("aria-valuetext", text.join(", "));
    draw();
    drawLegend();
    moveCursors(index);
    markWindow(index);
    byId("viewer").dataset.frame = position; // says: this frame is on the canvases now
    for (let i = 1; i <= 3 && position + i < clip.frames.length; i++) frameAt(position + i);
  }

  const showSafely = (position) =>
    show(position).catch((error) => (byId("frame-name").value = `this frame cannot be shown: ${error.message}`));
  const step = (by) => showSafely(Math.min(clip.frames.length - 1, Math.max(0, Number(slider.value) + by)));

  function seek(index) {
    let best = 0;
    clip.frames.forEach((frame, i) => {
      if (Math.abs(frame.index - index) < Math.abs(clip.frames[best].index - index)) best = i;
    });
    return showSafely(best);
  }

  function framesPerSecond() {
    const times = clip.frames.map((frame) => frame.time).filter(isNumber);
    const rate = times.length > 1 ? (times.length - 1) / (times[times.length - 1] - times[0]) : 10;
    return Number.isFinite(rate) ? Math.min(30, Math.max(4, rate)) : 10;
  }

  function setPlaying(isPlaying) {
    const token = isPlaying && clip.frames.length > 1 ? {} : null;
    playing = token;
    const button = byId("play");
    button.textContent = token ? "Pause" : "Play";
    button.setAttribute("aria-pressed", String(token !== null));
    const tick = async () => {
      if (playing !== token) return; // paused, or paused and started again
      const started = performance.now();
      await showSafely((Number(slider.value) + 1) % clip.frames.length);
      const pause = 1000 / (framesPerSecond() * Number(byId("speed").value));
      setTimeout(tick, Math.max(0, pause - (performance.now() - started)));
    };
    if (token) tick();
  }

  // ---- legend

  function drawLegend() {
    const shares = {};
    for (const panel of clip.panels) {
      const ids = shown.maps[panel];
      if (!ids) continue;
      const counts = new Uint32Array(page.ignore + 1);
      for (let i = 0; i < ids.length; i++) counts[ids[i]]++;
      shares[panel] = counts;
      for (let id = 0; id < counts.length; id++) if (counts[id]) addLegendEntry(id);
    }
    const total = clip.size[0] * clip.size[1];
    for (const button of byId("legend").children) {
      for (const output of button.querySelectorAll("b")) {
        const counts = shares[output.dataset.panel];
        output.textContent = counts ? (100 * (counts[Number(button.dataset.class)] / total)).toFixed(1) : "–";
      }
    }
  }

  // Entries come as classes first appear and then stay where they are, so that nothing jumps while playing.
  function addLegendEntry(id) {
    const legend = byId("legend");
    if (legend.querySelector(`[data-class="${id}"]`)) return;
    const shares = element("span", { className: "shares" });
    shares.append(...clip.panels.map((panel) => element("b", { className: tones[panel], data: { panel } })));
    const swatch = element("span", { className: "swatch", style: `background:${cssColor(id)}` });
    const button = element("button", { type: "button", data: { class: id } }, swatch);
    button.append(element("span", { className: "class-name" }, nameOf(id)), shares);
    button.setAttribute("aria-pressed", String(isolated === id));
    button.addEventListener("click", () => {
      isolated = isolated === id ? null : id;
      for (const other of legend.children) {
        other.setAttribute("aria-pressed", String(Number(other.dataset.class) === isolated && isolated !== null));
      }
      legend.classList.toggle("isolating", isolated !== null);
      draw();
    });
    const next = [...legend.children].find((other) => Number(other.dataset.class) > id);
    legend.insertBefore(button, next || null);
  }

  // ---- mouse: class names at a pixel, moving a zoomed picture

  function drawHover() {
    const [width, height] = clip.size;
    for (const panel of clip.panels) {
      const marker = canvases[panel].parentElement.querySelector(".marker");
      const output = document.querySelector(`output[data-hover="${panel}"]`);
      const ids = shown && shown.maps[panel];
      marker.hidden = !pointer;
      output.replaceChildren();
      if (!pointer || !ids) continue;
      marker.style.left = `${(100 * (pointer.x + 0.5 - view.x) * view.zoom) / width}%`;
      marker.style.top = `${(100 * (pointer.y + 0.5 - view.y) * view.zoom) / height}%`;
      const id = ids[pointer.y * width + pointer.x];
      output.append(element("span", { className: "swatch", style: `background:${cssColor(id)}` }), element("span", {}, nameOf(id)));
    }
  }

  function moveView(x, y) {
    const [width, height] = clip.size;
    view.x = Math.min(width - width / view.zoom, Math.max(0, x));
    view.y = Math.min(height - height / view.zoom, Math.max(0, y));
    draw();
  }

  function listenToCanvas(canvas) {
    let drag = null;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const [width, height] = clip.size;
      const x = view.x + (((event.clientX - box.left) / box.width) * width) / view.zoom;
      const y = view.y + (((event.clientY - box.top) / box.height) * height) / view.zoom;
      return { x: Math.min(width - 1, Math.max(0, Math.floor(x))), y: Math.min(height - 1, Math.max(0, Math.floor(y))) };
    };
    canvas.addEventListener("pointerdown", (event) => {
      pointer = at(event);
      drawHover();
      if (view.zoom === 1) return;
      canvas.setPointerCapture(event.pointerId);
      drag = { x: event.clientX, y: event.clientY, left: view.x, top: view.y };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        const scale = clip.size[0] / (canvas.getBoundingClientRect().width * view.zoom);
        moveView(drag.left - (event.clientX - drag.x) * scale, drag.top - (event.clientY - drag.y) * scale);
      }
      pointer = at(event);
      drawHover();
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (drag = null));
    canvas.addEventListener("pointerleave", () => {
      pointer = null;
      drawHover();
    });
  }

  // ---- plots

  const PLOTS = [
    { title: "Coverage by masklets", series: [["coverage", "covered"]] },
    {
      title: "Flicker: pixels whose class differs from the frame before",
      series: ["base", "refined", ...furtherSets].map((key) => [`flip_${key}`, names[key], tones[key]]),
    },
    { title: `Pixels changed by the ${page.maker}`, series: [["changed", "changed"]] },
  ];
  const SVG = element("div", { innerHTML: "<svg></svg>" }).firstChild.namespaceURI;
  const MARGIN = { left: 44, right: 8, top: 8, bottom: 20 };
  const HEIGHT = 116;

  function svg(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text) node.textContent = text;
    return node;
  }

  // The round number above the largest value: 1, 2 or 5 times a power of ten.
  function niceTop(values) {
    const top = Math.max(0.001, ...values);
    const unit = 10 ** Math.floor(Math.log10(top));
    return Math.min(1, [1, 2, 5, 10].map((factor) => factor * unit).find((value) => value >= top - 1e-9));
  }

  // Long clips: lowest and highest value per column, so that a single spike still shows.
  function columns(values, limit) {
    const points = values.map((value, i) => [i, value]);
    if (points.length <= 2 * limit) return points;
    const size = Math.ceil(points.length / limit);
    const kept = [];
    for (let i = 0; i < points.length; i += size) {
      const known = points.slice(i, i + size).filter(([, value]) => isNumber(value)).sort((a, b) => a[1] - b[1]);
      if (!known.length) kept.push(points[i]);
      else kept.push(...[known[0], known[known.length - 1]].sort((a, b) => a[0] - b[0]));
    }
    return kept;
  }

  function linePath(points, toX, toY) {
    let path = "";
    let isPen = false;
    for (const [i, value] of points) {
      if (isNumber(value)) path += `${isPen ? "L" : "M"}${toX(i).toFixed(1)},${toY(value).toFixed(1)}`;
      isPen = isNumber(value);
    }
    return path;
  }

  function buildPlots() {
    const list = byId("plot-list");
    const width = Math.max(260, list.clientWidth);
    const right = width - MARGIN.right;
    const toX = (i) => MARGIN.left + ((right - MARGIN.left) * i) / Math.max(1, clip.total - 1);
    const plots = PLOTS.map(({ title, series }) => {
      const known = series.filter(([key]) => clip.series[key]);
      if (!known.length) return null;
      const top = niceTop(known.map(([key]) => clip.series[key].reduce((a, b) => Math.max(a, b ?? 0), 0)));
      const toY = (value) => MARGIN.top + (HEIGHT - MARGIN.top - MARGIN.bottom) * (1 - value / top);
      const drawing = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": title });
      for (const level of [0, top / 2, top]) {
        drawing.append(svg("line", { class: "grid", x1: MARGIN.left, x2: right, y1: toY(level), y2: toY(level) }));
        const label = `${Number((100 * level).toPrecision(3))} %`;
        drawing.append(svg("text", { x: MARGIN.left - 6, y: toY(level) + 4, "text-anchor": "end" }, label));
      }
      for (const { start } of clip.windows.length <= 100 ? clip.windows.slice(1) : []) {
        const x = toX(start - 0.5);
        drawing.append(svg("line", { class: "seam", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
      }
      for (const [key, , tone] of known) {
        drawing.append(svg("path", { class: tone || key, d: linePath(columns(clip.series[key], width), toX, toY) }));
      }
      drawing.append(svg("text", { x: MARGIN.left, y: HEIGHT - 5 }, "frame 1"));
      drawing.append(svg("text", { x: right, y: HEIGHT - 5, "text-anchor": "end" }, String(clip.total)));
      drawing.append(svg("line", { class: "cursor", x1: 0, x2: 0, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
      const go = (event) => {
        const x = ((event.clientX - drawing.getBoundingClientRect().left) / drawing.clientWidth) * width;
        seek(((x - MARGIN.left) / (right - MARGIN.left)) * (clip.total - 1));
      };
      drawing.addEventListener("pointerdown", go);
      drawing.addEventListener("pointermove", (event) => event.buttons && go(event));
      const caption = element("figcaption", {}, element("b", {}, title));
      for (const [key, label, tone] of known) {
        const line = element("span", { className: `swatch-line ${tone || key}` });
        const average = `mean ${percent(mean(clip.series[key]))}`;
        caption.append(element("span", {}, line, `${label} `, element("output", { data: { series: key, average } })));
      }
      return element("figure", { className: "plot", data: { plot: series[0][0] } }, caption, drawing);
    });
    list.replaceChildren(...plots.filter(Boolean));
    byId("plots").hidden = !list.children.length;
    list.dataset.width = width;
    list.toX = toX;
  }

  function moveCursors(index) {
    for (const cursor of document.querySelectorAll(".plot .cursor")) {
      const x = byId("plot-list").toX(index);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
    for (const output of document.querySelectorAll("output[data-series]")) {
      output.value = `${percent(clip.series[output.dataset.series][index])} (${output.dataset.average})`;
    }
  }

  // ---- windows and masklets

  function table(caption, heads, rows) {
    const head = element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text))));
    return element("table", {}, element("caption", {}, caption), head, element("tbody", {}, ...rows));
  }

  function buildWindows() {
    byId("windows").hidden = !clip.windows.length;
    const columns = [
      ["coverage", "coverage"], ["changed", "changed"], ["flip_base", "flicker base"],
      ["flip_refined", page.hasBase ? `flicker ${names.refined}` : "flicker"],
    ].filter(([key]) => page.hasBase || !["changed", "flip_base"].includes(key));
    const row = ({ start, length, masklets }, i) => {
      const cut = (key) => percent(mean((clip.series[key] || []).slice(start, start + length)));
      const button = element("button", { type: "button" }, `${start + 1}–${start + length}`);
      button.setAttribute("aria-label", `Go to frames ${start + 1} to ${start + length}`);
      button.addEventListener("click", () => seek(start));
      const cells = [masklets, ...columns.map(([key]) => cut(key))];
      return element("tr", { data: { window: i } }, element("td", {}, button), ...cells.map((text) => element("td", {}, text)));
    };
    byId("window-table").replaceChildren(
      table(
        "Means per window; choose one to go there",
        ["frames", "masklets", ...columns.map(([, head]) => head)],
        clip.windows.map(row),
      ),
    );
    byId("masklet-table").replaceChildren();
    delete byId("masklet-table").dataset.window;
  }

  function markWindow(index) {
    const number = clip.windows.findIndex(({ start, length }) => index >= start && index < start + length);
    const box = byId("masklet-table");
    if (number < 0 || box.dataset.window === String(number)) return;
    box.dataset.window = number;
    for (const row of document.querySelectorAll("tr[data-window]")) {
      row.classList.toggle("current", row.dataset.window === String(number));
    }
    const { rows, start, length } = clip.windows[number];
    const bar = (share) => [
      element("span", { className: "share" }, element("i", { style: `width:${100 * (share || 0)}%` })),
      percent(share),
    ];
    const className = (id) => {
      if (id === null) return [`none: ${page.abstained}`];
      if (!isNumber(id)) return [id];
      return [element("span", { className: "swatch", style: `background:${cssColor(id)}` }), ` ${nameOf(id)}`];
    };
    const cells = ([id, winner, share, iou]) => [[String(id ?? "–")], className(winner), bar(share), [isNumber(iou) ? iou.toFixed(3) : "–"]];
    const caption = rows
      ? `Masklets of frames ${start + 1}–${start + length}, most doubtful first`
      : "Masklets of this window are left out to keep the page small; see windows.jsonl";
    const sorted = [...(rows || [])].sort((a, b) => (a[2] ?? 0) - (b[2] ?? 0));
    box.replaceChildren(
      table(caption, ["masklet", "class", page.confidence, "predicted IoU"],
        sorted.map((row) => element("tr", {}, ...cells(row).map((parts) => element("td", {}, ...parts))))),
    );
  }

  // ---- start

  function choose(number) {
    setPlaying(false);
    clip = readJson(`clip-${number}`);
    cache = new Map();
    shown = pointer = isolated = null;
    Object.assign(view, { x: 0, y: 0, zoom: 1 });
    byId("zoom").value = 1;
    slider.max = clip.frames.length - 1;
    byId("legend").replaceChildren();
    byId("legend").classList.remove("isolating");
    for (const [panel, canvas] of Object.entries(canvases)) {
      canvas.closest("figure").hidden = !clip.panels.includes(panel);
      [canvas.width, canvas.height] = clip.size;
    }
    byId("viewer").dataset.count = Math.min(clip.panels.length, 5); // 5: five or more
    layers.changed.closest("label").hidden = !clip.panels.includes("base");
    byId("viewer").dataset.clip = number;
    byId("legend-key").replaceChildren(
      "Classes and their share of the frame in percent:",
      ...clip.panels.flatMap((panel) => [element("span", { className: `dot key ${tones[panel]}` }), names[panel]]),
      ". Choose a class to show it alone.",
    );
    buildPlots();
    buildWindows();
    return showSafely(0);
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isArrow = event.key.startsWith("Arrow");
    if (event.shiftKey && isArrow && view.zoom > 1) {
      const amount = clip.size[0] / view.zoom / 8;
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      moveView(view.x + dx * amount, view.y + dy * amount);
      event.preventDefault();
      return;
    }
    // Controls keep the keys they use themselves.
    const tag = event.target.tagName;
    const isRange = tag === "INPUT" && event.target.type === "range";
    if (tag === "SELECT" || (event.key !== " " && isRange)) return;
    if (event.key === " " && (tag === "BUTTON" || tag === "A" || (tag === "INPUT" && !isRange))) return;
    const actions = {
      " ": () => setPlaying(playing === null),
      ArrowLeft: () => step(-1),
      ArrowRight: () => step(1),
      Home: () => step(-Infinity),
      End: () => step(Infinity),
    };
    if (!actions[event.key] || event.shiftKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  checkCanvas();
  if (!byId("clip-0")) return;
  byId("play").addEventListener("click", () => setPlaying(playing === null));
  slider.addEventListener("input", () => showSafely(Number(slider.value)));
  byId("clip-select").addEventListener("change", (event) => choose(event.target.value));
  byId("opacity").addEventListener("input", draw);
  byId("zoom").addEventListener("input", (event) => {
    const [width, height] = clip.size;
    const center = [view.x + width / view.zoom / 2, view.y + height / view.zoom / 2];
    view.zoom = Number(event.target.value);
    moveView(center[0] - width / view.zoom / 2, center[1] - height / view.zoom / 2);
  });
  for (const input of Object.values(layers)) input.addEventListener("change", draw);
  for (const canvas of Object.values(canvases)) listenToCanvas(canvas);
  document.addEventListener("keydown", onKey);
  new ResizeObserver(() => {
    if (Math.abs(byId("plot-list").clientWidth - byId("plot-list").dataset.width) < 2 || !shown) return;
    buildPlots();
    moveCursors(clip.frames[shown.position].index);
  }).observe(byId("plot-list"));
  choose(0);
})();
