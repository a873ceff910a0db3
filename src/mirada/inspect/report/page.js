'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const short = name => '\u2068' + (name.length > 60 ? name.slice(0, 59) + '…' : name) + '\u2069';  // isolated from the text around it
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// What is shown. `at` is the patch that is looked from, as fractions of the picture from its left and top; null stands
// for the whole image. `pinned` is what it returns to when the pointer leaves. `depth` goes from the first layer, 0, to
// the last, 1; `heads` has, for each model, a head or null for all of them.
const state = { image: 0, depth: 1, heads: data.models.map(() => data.head), at: null, pinned: null };
const looks = () => data.images[state.image].looks;
const deepest = Math.max(...data.images[0].looks.map(look => look.layers.length));
const indexOf = look => Math.round(state.depth * (look.layers.length - 1));
const layerOf = look => look.layers[indexOf(look)];
const headOf = (model, layer) => state.heads[model] !== null && state.heads[model] < layer.heads ? state.heads[model] : null;

// ---- Maps. Each has its own lowest and highest value at the ends of its steps; see pack.py.

const unpacked = new WeakMap();
const bytes = text => Uint8Array.from(atob(text), character => character.charCodeAt(0));
function unpack(map) {
  if (!unpacked.has(map)) {
    const ends = map.ends && bytes(map.ends);
    unpacked.set(map, { values: bytes(map.values), ends: ends && new DataView(ends.buffer) });
  }
  return unpacked.get(map);
}
// One of several maps: its levels in [0, 1], and what 0 and 1 stand for.
function slice(map, index) {
  const { values, ends } = unpack(map), size = map.width * map.height, levels = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const at = index * size + i;
    levels[i] = map.bits === 8 ? values[at] / 255 : (at & 1 ? values[at >> 1] >> 4 : values[at >> 1] & 15) / 15;
  }
  const end = i => (ends.getUint16(2 * (2 * index + i), true) / 65535) ** 2;
  return { levels, low: end(0), high: end(1), width: map.width, height: map.height, block: map.block };
}
// From where in a layer: the number of the block of patches under `at`.
function queryOf(layer, at = state.at) {
  const [height, width] = layer.grid, across = Math.ceil(width / layer.block);
  const row = clamp(Math.floor(at.y * height), 0, height - 1), column = clamp(Math.floor(at.x * width), 0, width - 1);
  return Math.floor(row / layer.block) * across + Math.floor(column / layer.block);
}
function attentionOf(layer, head) {
  if (state.at === null) return { ...slice(layer.summary, head === null ? layer.heads : head), cell: 1 };
  const query = queryOf(layer), queries = layer.mean.count;
  const map = head === null ? layer.mean : layer.byHead;
  return { ...slice(map, head === null ? query : head * queries + query), cell: layer.block * map.block };
}

// ---- Drawing

const palette = bytes(data.palette);
// With `veil` dark colours let more of what is below shine through than bright ones.
function paint(canvas, map, veil = false) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext('2d'), pixels = context.createImageData(map.width, map.height);
  map.levels.forEach((level, i) => {
    const colour = 3 * Math.round(255 * level);
    for (let channel = 0; channel < 3; channel++) pixels.data[4 * i + channel] = palette[colour + channel];
    pixels.data[4 * i + 3] = veil ? 150 + 105 * level : 255;
  });
  context.putImageData(pixels, 0, 0);
}
// Cells of blocks may reach over the right and lower edge of the picture.
function paintOver(canvas, map, [height, width]) {
  paint(canvas, map, true);
  canvas.style.width = 100 * map.width * map.cell / width + '%';
  canvas.style.height = 100 * map.height * map.cell / height + '%';
}
function paintColours(canvas, pictures, index = 0, alpha = false) {
  const { values } = unpack(pictures), size = pictures.width * pictures.height;
  canvas.width = pictures.width;
  canvas.height = pictures.height;
  const context = canvas.getContext('2d'), pixels = context.createImageData(pictures.width, pictures.height);
  for (let i = 0; i < size; i++) {
    if (alpha) pixels.data[4 * i + 3] = values[index * size + i] ? 0 : 190;  // darkens what is not the object
    else {
      for (let channel = 0; channel < 3; channel++) pixels.data[4 * i + channel] = values[3 * (index * size + i) + channel];
      pixels.data[4 * i + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
}
function place(cursor, layer) {
  cursor.hidden = state.at === null;
  if (state.at === null) return;
  const [height, width] = layer.grid, across = Math.ceil(width / layer.block), query = queryOf(layer);
  const row = Math.floor(query / across) * layer.block, column = query % across * layer.block;
  Object.assign(cursor.style, {
    left: 100 * column / width + '%', top: 100 * row / height + '%',
    width: 100 * layer.block / width + '%', height: 100 * layer.block / height + '%',
  });
}
const percent = share => (share >= 0.1 ? (100 * share).toFixed(0) : share >= 0.001 ? (100 * share).toPrecision(2) : (100 * share).toFixed(2)) + '%';
const strongest = map => map.levels.reduce((best, level, i) => level > map.levels[best] ? i : best, 0);
const spot = (map, index) => {
  const row = Math.floor(index / map.width) * map.cell + 1, column = index % map.width * map.cell + 1;
  return map.cell === 1 ? `row ${row}, column ${column}` : `rows ${row} to ${row + map.cell - 1}, columns ${column} to ${column + map.cell - 1}`;
};

function tiles(holder, count, draw, name, chosen, choose) {
  holder.classList.toggle('few', count <= 6);
  while (holder.children.length > count) holder.lastChild.remove();
  while (holder.children.length < count) {
    const index = holder.children.length, tile = element('button', 'tile');
    tile.type = 'button';
    tile.append(element('canvas'), element('span'));
    tile.addEventListener('click', () => choose(index));
    holder.append(tile);
  }
  [...holder.children].forEach((tile, index) => {
    paint(tile.firstChild, draw(index));
    const [title, label] = name(index);
    tile.lastChild.textContent = title;
    tile.setAttribute('aria-label', label);
    tile.setAttribute('aria-pressed', index === chosen);
  });
}

// The share of a block's attention that goes to no patch: of one head, or of all of them, whose mean comes last.
function spentOf(layer, head) {
  const { values } = unpack(layer.spent);
  return values[(head === null ? layer.heads : head) * layer.mean.count + queryOf(layer)] / 255;
}

const drawings = {
  attention(view, look, model) {
    const layer = layerOf(look), head = headOf(model, layer), map = attentionOf(layer, head);
    paintOver(find('.heat', view), map, layer.grid);
    place(find('.cursor', view), layer);
    const even = 1 / (layer.grid[0] * layer.grid[1]);
    find(`[data-low="${model}"]`).textContent = percent(map.low);
    find(`[data-high="${model}"]`).textContent = percent(map.high) + ' of attention';
    const who = head === null ? 'All heads' : `Head ${head + 1}`, from = state.at === null
      ? (look.classToken ? 'from the class token' : 'from all patches')
      : `from ${spot({ width: Math.ceil(layer.grid[1] / layer.block), cell: layer.block }, queryOf(layer))}`;
    const output = find(`[data-readout="${model}"]`);
    output.replaceChildren(element('b', '', `Layer ${indexOf(look) + 1}. ${who}, ${from}.`),
      map.high > map.low ? ` Most goes to ${spot(map, strongest(map))}: ${percent(map.high)} per patch, where an even spread would give ${percent(even)}.` : ' Attention is spread evenly.');
    if (state.at !== null && layer.prefix) output.append(` ${percent(spentOf(layer, head))} goes to ${!look.classToken ? 'tokens before the patches' : layer.prefix === 1 ? 'the class token' : 'the class token and registers'}.`);
    const coarse = layer.block * layer.byHead.block;
    find(`[data-heads-note="${model}"]`).textContent = state.at !== null && coarse > 1 ? `in squares of ${coarse} × ${coarse} patches` : '';
    tiles(find(`[data-heads="${model}"]`), layer.heads, index => attentionOf(layer, index),
      index => [`${index + 1} · ${layer.distance[index].toFixed(0)} px`, `Head ${index + 1}, looks ${layer.distance[index].toFixed(0)} pixels far`],
      head, index => { state.heads[model] = head === index ? null : index; schedule(); });
    tiles(find(`[data-layers="${model}"]`), look.layers.length, index => attentionOf(look.layers[index], headOf(model, look.layers[index])),
      index => [`${index + 1}`, `Layer ${index + 1}`], indexOf(look),
      index => { state.depth = index / Math.max(1, look.layers.length - 1); schedule(); });
  },
  rollout(view, look, model) {
    const layer = layerOf(look), rolled = layer => ({ ...slice(layer.rollout, 0), cell: 1 }), map = rolled(layer);
    paintOver(find('.heat', view), map, layer.grid);
    place(find('.cursor', view), layer);
    const first = look.layers.findIndex(other => other.grid.join() === layer.grid.join());
    find(`[data-rollout="${model}"]`).textContent = `Through layers ${first + 1} to ${indexOf(look) + 1}${first ? ', since which the grid is what it is' : ''}. Most from ${spot(map, strongest(map))}: ${percent(map.high)}; least ${percent(map.low)}.`;
    tiles(find(`[data-rolled="${model}"]`), look.layers.length, index => rolled(look.layers[index]),
      index => [`${index + 1}`, `Through layer ${index + 1}`], indexOf(look),
      index => { state.depth = index / Math.max(1, look.layers.length - 1); schedule(); });
  },
  mosaic(view, look, model) {
    const { map, grid } = positionsOf(model), canvas = find('.heat', view), [height, width] = grid;
    if (canvas.width !== width * (width + 1) - 1) {  // once: it depends on no image
      const maps = Array.from({ length: height * width }, (_, index) => cosines(map, index));
      const low = Math.min(...maps.map(one => one.low)), high = 1;
      canvas.width = width * (width + 1) - 1;
      canvas.height = height * (height + 1) - 1;
      const context = canvas.getContext('2d'), small = document.createElement('canvas');
      maps.forEach((one, index) => {
        one.levels = one.levels.map(level => clamp((one.low + level * (one.high - one.low) - low) / (high - low), 0, 1));
        paint(small, one);
        context.drawImage(small, index % width * (width + 1), Math.floor(index / width) * (height + 1));
      });
    }
    place(find('.cursor', view), { grid, block: 1 });
  },
  position(view, look, model) {
    const { map, grid } = positionsOf(model), at = state.at || { x: 0.5, y: 0.5 };
    const one = cosines(map, queryOf({ grid, block: 1 }, at));
    paint(find('.heat', view), one);
    place(find('.cursor', view), { grid, block: 1 });
    find(`[data-position="${model}"]`).textContent = `Cosines from ${one.low.toFixed(2)} to ${one.high.toFixed(2)}, ${state.at ? 'for the chosen patch' : 'for the patch in the middle'}.`;
  },
};
const positionsOf = model => { const map = data.models[model].positions; return { map, grid: [map.height, map.width] }; };
const cosines = (map, index) => { const one = slice(map, index); return { ...one, low: 2 * one.low - 1, high: 2 * one.high - 1 }; };

// ---- Pictures that depend on the image alone

function cell(model, title, text, draw) {
  const figure = element('figure', 'cell'), frame = element('div'), photo = element('img', 'photo'), canvas = element('canvas', 'heat');
  photo.src = data.images[state.image].pictures[model];
  photo.alt = '';
  frame.append(photo);
  if (draw) { draw(canvas, frame); frame.append(canvas); canvas.setAttribute('role', 'img'); canvas.setAttribute('aria-label', `${title}: ${text}`); }
  else photo.alt = `${short(data.images[state.image].name)}, as the model sees it`;
  const caption = element('figcaption');
  caption.append(element('b', '', title), document.createElement('br'), element('span', '', text));
  figure.append(frame, caption);
  return figure;
}
const galleries = {
  words: (look, model) => look.words === null ? [] : look.wordNames.map((word, index) => {
    const map = slice(look.words, index);
    return cell(model, short(word), `cosines from ${(2 * map.low - 1).toFixed(3)} to ${(2 * map.high - 1).toFixed(3)}`, canvas => paint(canvas, map, true));
  }),
  patches: (look, model) => [
    cell(model, 'The image', data.images[state.image].fits[model]),
    cell(model, 'All patches', `${look.patches.height} × ${look.patches.width}`, canvas => { canvas.classList.add('sharp'); paintColours(canvas, look.patches); }),
    cell(model, 'The object alone', 'the side of the first component that touches less of the border', canvas => { canvas.classList.add('sharp'); paintColours(canvas, look.foreground); }),
  ],
  objects: (look, model) => look.objects.map(found => cell(model, found.method, found.patches ? `${found.patches} of ${found.mask.width * found.mask.height} patches; ${found.how}` : 'found nothing', (canvas, frame) => {
    canvas.classList.add('sharp');
    paintColours(canvas, found.mask, 0, true);
    if (!found.box) return;
    const [left, top, right, bottom] = found.box, box = element('div', 'box');
    Object.assign(box.style, {
      left: 100 * left / found.mask.width + '%', top: 100 * top / found.mask.height + '%',
      width: 100 * (right - left) / found.mask.width + '%', height: 100 * (bottom - top) / found.mask.height + '%',
    });
    frame.append(box);
  })),
};
function showImage() {
  const image = data.images[state.image];
  for (const view of all('.view')) {
    const photo = find('.photo', view);
    photo.src = image.pictures[view.dataset.model];
    photo.alt = `${short(image.name)}, as the model sees it`;
  }
  for (const line of all('[data-fits]')) line.textContent = `${short(image.name)}: ${image.fits[line.dataset.fits]}.`;
  for (const gallery of all('[data-gallery]')) {
    const model = +gallery.dataset.model;
    gallery.replaceChildren(...galleries[gallery.dataset.gallery](looks()[model], model));
  }
  for (const plot of all('[data-chart]')) chart(plot);
  for (const button of all('[data-image]')) button.setAttribute('aria-pressed', +button.dataset.image === state.image);
  schedule();
}

// ---- Charts with a dot for each head

function ticks(low, high, count) {
  const unit = 10 ** Math.floor(Math.log10((high - low) / count || 1));
  const step = unit * [1, 2, 5, 10].find(factor => count * unit * factor >= 0.999 * (high - low));
  const found = [];
  for (let at = Math.floor(low / step + 1e-6); at <= Math.ceil(high / step - 1e-6); at++) found.push(at * step);
  return found;
}
const svg = (tag, attributes) => {
  const made = document.createElementNS(find('.mark svg').namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const charts = new Map();
function chart(plot) {
  const model = +plot.dataset.model, kind = plot.dataset.chart, look = looks()[model], layers = look.layers;
  plot.replaceChildren();
  if (!layers.length) return;
  const values = layers.flatMap(layer => layer[kind]), even = layers.map(layer => layer.even[kind]);
  const rungs = ticks(0, Math.max(...values, ...even), 4), top = rungs[rungs.length - 1];
  const x = index => 100 * (index + 0.5) / layers.length, y = value => 100 * (1 - value / top);
  for (const rung of rungs) {
    const line = element('div', 'up');
    line.style.top = y(rung) + '%';
    line.append(element('span', '', +rung.toPrecision(3) + ''));
    plot.append(line);
  }
  const every = Math.ceil(layers.length / 12);
  layers.forEach((_, index) => {
    if (index % every && index !== layers.length - 1) return;
    const label = element('span', 'along', index + 1 + '');
    label.style.left = x(index) + '%';
    plot.append(label);
  });
  plot.append(element('span', 'along axis', 'layer'));
  const picture = svg('svg', { 'aria-hidden': 'true' });
  even.forEach((value, index) => picture.append(svg('line', { class: 'even', x1: x(index - 0.5) + '%', x2: x(index + 0.5) + '%', y1: y(value) + '%', y2: y(value) + '%' })));
  const dots = layers.flatMap((layer, index) => layer[kind].map((value, head) => {
    const circle = svg('circle', { cx: x(index) + '%', cy: y(value) + '%', r: 5 });
    picture.append(circle);
    return { index, head, value, circle, x: x(index), y: y(value) };
  }));
  plot.append(picture);
  charts.set(plot, { dots, kind, model, look, at: null });
  mark(plot);
}
function mark(plot) {
  const shown = charts.get(plot);
  if (!shown) return;
  const index = indexOf(shown.look), head = headOf(shown.model, shown.look.layers[index]);
  for (const dot of shown.dots) {
    dot.circle.classList.toggle('layer', dot.index === index);
    dot.circle.classList.toggle('chosen', dot === shown.at || (dot.index === index && dot.head === head));
    dot.circle.setAttribute('r', dot === shown.at ? 7 : 5);
  }
  const dot = shown.at, own = shown.look.layers[index][shown.kind], unit = shown.kind === 'distance' ? ' px' : ' nats';
  find('.where', plot.parentElement).textContent = dot
    ? `layer ${dot.index + 1}, head ${dot.head + 1}: ${+dot.value.toPrecision(3)}${unit}`
    : `layer ${index + 1}: ${+Math.min(...own).toPrecision(3)} to ${+Math.max(...own).toPrecision(3)}${unit}`;
}
for (const plot of all('[data-chart]')) {
  const nearest = event => {
    const box = plot.getBoundingClientRect(), shown = charts.get(plot);
    if (!shown) return;
    const far = dot => Math.hypot(event.clientX - box.left - dot.x * box.width / 100, event.clientY - box.top - dot.y * box.height / 100);
    shown.at = shown.dots.reduce((best, dot) => far(dot) < far(best) ? dot : best);
    mark(plot);
  };
  const choose = () => {
    const { at, model, look } = charts.get(plot);
    if (!at) return;
    state.depth = at.index / Math.max(1, look.layers.length - 1);
    state.heads[model] = at.head;
    schedule();
  };
  plot.addEventListener('pointermove', nearest);
  plot.addEventListener('pointerdown', nearest);
  plot.addEventListener('click', choose);
  plot.addEventListener('pointerleave', () => { charts.get(plot).at = null; mark(plot); });
  plot.addEventListener('blur', () => { charts.get(plot).at = null; mark(plot); });
  plot.addEventListener('keydown', event => {
    const shown = charts.get(plot);
    const sorted = index => shown.dots.filter(dot => dot.index === index).sort((a, b) => a.value - b.value);
    const dot = shown.at || sorted(indexOf(shown.look))[0], column = sorted(dot.index), place = column.indexOf(dot);
    const across = index => sorted(clamp(index, 0, shown.look.layers.length - 1));
    const to = {
      ArrowUp: () => column[clamp(place + 1, 0, column.length - 1)], ArrowDown: () => column[clamp(place - 1, 0, column.length - 1)],
      ArrowLeft: () => { const other = across(dot.index - 1); return other[Math.min(place, other.length - 1)]; },
      ArrowRight: () => { const other = across(dot.index + 1); return other[Math.min(place, other.length - 1)]; },
    }[event.key];
    if (to) { shown.at = shown.at ? to() : dot; mark(plot); event.preventDefault(); }
    if (event.key === 'Enter' || event.key === ' ') { choose(); event.preventDefault(); }
  });
}

// ---- All of it

let waiting = false;
function schedule() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}
function draw() {
  for (const view of all('[data-draw]')) {
    const model = +view.dataset.model, look = looks()[model];
    if (look.layers.length || view.matches('.mosaic')) drawings[view.dataset.draw](view, look, model);
  }
  for (const plot of charts.keys()) mark(plot);
  const slider = find('#layer');
  if (!slider) return;
  slider.value = Math.round(state.depth * (deepest - 1)) + 1;
  find('#layer-name').textContent = `${slider.value} of ${deepest}`;
  find('#whole').setAttribute('aria-pressed', state.at === null);
  find('#together').setAttribute('aria-pressed', state.heads.every(head => head === null));
}

const slider = find('#layer');
if (slider) {
  slider.max = deepest;
  const toLayer = value => { state.depth = (clamp(value, 1, deepest) - 1) / Math.max(1, deepest - 1); schedule(); };
  slider.addEventListener('input', () => toLayer(+slider.value));
  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '[') toLayer(+slider.value - 1);
    if (event.key === ']') toLayer(+slider.value + 1);
  });
  const whole = () => { state.at = state.pinned = null; schedule(); };
  find('#whole').addEventListener('click', whole);
  document.addEventListener('keydown', event => { if (event.key === 'Escape') whole(); });
  find('#together').addEventListener('click', () => { state.heads.fill(null); schedule(); });
  const strength = find('#strength');
  const overlay = () => document.documentElement.style.setProperty('--strength', strength.value / 100);
  strength.addEventListener('input', overlay);
  if (data.layer !== null) state.depth = data.layer / Math.max(1, data.images[0].looks[0].layers.length - 1);
}

for (const view of all('.view, [data-draw=mosaic]')) {
  const at = event => {
    const box = view.getBoundingClientRect();
    return { x: clamp((event.clientX - box.left) / box.width, 0, 0.9999), y: clamp((event.clientY - box.top) / box.height, 0, 0.9999) };
  };
  view.addEventListener('pointermove', event => { state.at = at(event); if (event.pointerType !== 'mouse' || event.buttons) state.pinned = state.at; schedule(); });
  view.addEventListener('pointerdown', event => { state.at = state.pinned = at(event); schedule(); });
  view.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') { state.at = state.pinned; schedule(); } });
  view.addEventListener('keydown', event => {
    const look = looks()[+view.dataset.model], move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move) return;
    const layer = look.layers.length ? layerOf(look) : { grid: positionsOf(+view.dataset.model).grid, block: 1 };
    const [height, width] = layer.grid, from = state.at || { x: 0.5, y: 0.5 }, first = state.at === null;
    const step = (value, by, count) => {
      const size = layer.block / count, cell = Math.floor(value / size + 1e-9) + (first ? 0 : by);
      return Math.min((clamp(cell, 0, Math.ceil(count / layer.block) - 1) + 0.5) * size, 0.9999);
    };
    state.at = state.pinned = { x: step(from.x, move[0], width), y: step(from.y, move[1], height) };
    schedule();
    event.preventDefault();
  });
}

for (const button of all('[data-image]')) button.addEventListener('click', () => { state.image = +button.dataset.image; showImage(); });

for (const holder of all('[data-filters]')) {
  const filters = data.models[+holder.dataset.filters].filters;
  for (let index = 0; index < filters.count; index++) {
    const canvas = element('canvas');
    paintColours(canvas, filters, index);
    holder.append(canvas);
  }
}
for (const ramp of all('.ramp')) {
  const stops = Array.from({ length: 9 }, (_, i) => `rgb(${palette.slice(3 * Math.round(255 * i / 8), 3 * Math.round(255 * i / 8) + 3).join(' ')})`);
  ramp.style.background = `linear-gradient(90deg, ${stops.join(', ')})`;
}

const copy = find('#copy');
copy.hidden = false;
copy.addEventListener('click', async () => {
  const command = find('#command');
  try {
    await navigator.clipboard.writeText(command.textContent);
    copy.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(command);  // one keystroke is left to do
    copy.textContent = 'Press Ctrl+C';
  }
  setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
});

showImage();
