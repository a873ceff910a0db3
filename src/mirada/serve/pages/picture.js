// One picture: seen large, why it was found, where the model looks in it, what is known of it, what is like it.

import { ask, find, icon, make, number, pictureAt, say, shown, language } from '/page.js';
import { addPicture } from '/search.js';

const MODES = ['plain', 'why', 'attention'];
const RAMP = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];  // magma
const dialog = find('#picture');
let state = { mode: 'plain', layer: -1 };
let grid, asked, version;

/** `context` says which pictures stand before and behind it, and what was asked. */
export function begin(gallery) {
  grid = gallery;
  dialog.addEventListener('close', () => { if (state.place !== null) grid.point(state.place); });
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
}
export const isOpen = () => dialog.open;
export const current = () => state.row;

/** Show the row at a place of the gallery, or, with `place` null, any row. */
export async function open(place, row, query, indexVersion) {
  asked = query;
  version = indexVersion;
  state = { ...state, place, row, heat: null, attention: null, ask: Symbol(row.id) };
  if (!isAsked() && state.mode === 'why') state.mode = 'plain';
  draw();
  if (!dialog.open) dialog.showModal();
  find('.close', dialog).focus();
}
const isAsked = () => Boolean(asked.q || asked.plus.length || asked.minus.length);

export async function step(by) {
  if (state.place === null) return;
  const place = state.place + by;
  if (place < 0 || place >= grid.total) return;
  const row = await grid.row(place);
  if (row) open(place, row, asked, version);
}

export function setMode(mode) {
  state.mode = mode;
  for (const button of dialog.querySelectorAll('[data-mode]')) button.setAttribute('aria-pressed', button.dataset.mode === mode);
  overlay();
}
export const setModeByNumber = index => setMode(MODES[index]);

function draw() {
  const row = state.row, name = shown(row.name);
  const tool = (key, path, action, extra = {}) => make('button', { type: 'button', class: 'icon', 'aria-label': say(key), title: say(key), onclick: action, ...extra }, icon(path));
  const view = make('div', { class: 'view' },
    make('img', { class: 'photo', alt: name, src: pictureAt(row.id, 'view', { v: version }), width: row.width, height: row.height }),
    make('canvas', { class: 'heat', hidden: true }), make('div', { class: 'cursor', hidden: true }));
  view.style.setProperty('--ratio', row.width && row.height ? row.width / row.height : 1);
  dialog.replaceChildren(
    make('div', { class: 'top' },
      make('h2', { id: 'name' }, make('bdi', {}, name)),
      tool('previous', 'M15 5l-7 7 7 7', () => step(-1), { disabled: state.place === null || state.place === 0 }),
      tool('next', 'M9 5l7 7-7 7', () => step(1), { disabled: state.place === null || state.place >= grid.total - 1 }),
      tool('close', 'M6 6l12 12M18 6L6 18', () => dialog.close(), { class: 'icon close' })),
    make('div', { class: 'body' },
      make('div', { class: 'stage' }, view,
        make('div', { class: 'modes' }, ...MODES.map(mode => make('button', { type: 'button', 'data-mode': mode, 'aria-pressed': String(mode === state.mode), onclick: () => setMode(mode) }, say(mode)))),
        make('p', { class: 'readout' }, make('span', { role: 'status' }), ' ', make('input', { type: 'range', min: 1, hidden: true, 'aria-label': say('layer'), oninput: event => { state.layer = event.target.value - 1; overlay(); } }))),
      make('div', { class: 'side' },
        make('div', { class: 'actions' },
          make('button', { type: 'button', onclick: () => refine(1) }, '+ ' + say('likeThis')),
          make('button', { type: 'button', onclick: () => refine(-1) }, '− ' + say('unlikeThis')),
          make('a', { class: 'button', href: pictureAt(row.id, 'file'), download: '' }, say('save'))),
        make('h3', {}, say('facts')), facts(row),
        make('h3', {}, say('neighbours')), make('div', { class: 'strip', id: 'neighbours' }),
        make('h3', { class: 'if-same' }, say('same')), make('div', { class: 'strip', id: 'same' }))));
  find('.photo', view).addEventListener('load', overlay);
  pointing(view);
  overlay();
  related(row, 'neighbours', '#neighbours', { k: 12 });
  related(row, 'duplicates', '#same');
}

export function refine(weight) {
  const { id, name } = state.row;
  dialog.close();
  addPicture(String(id), weight, name);
}

function facts(row) {
  const time = value => value && new Date(value).toLocaleString(language, { dateStyle: 'medium', timeStyle: 'short' });
  const bytes = row.size < 1e6 ? `${number(Math.max(1, Math.round(row.size / 1e3)))} kB` : `${number(Math.round(row.size / 1e5) / 10)} MB`;
  const copy = make('button', { type: 'button', class: 'copy', onclick: async () => {
    try { await navigator.clipboard.writeText(row.path); copy.textContent = say('copied'); } catch { getSelection().selectAllChildren(find('.path', dialog)); }
  } }, say('copy'));
  const known = [
    ['score', row.score != null && asked && isAsked() && row.score.toFixed(3)], ['match', row.match != null && isAsked() && say('sure', { share: Math.round(row.match * 100) + ' %' })],
    ['path', make('span', {}, make('bdi', { class: 'path' }, shown(row.path)), ' ', copy)], ['pixels', row.width && `${row.width} × ${row.height}`], ['size', bytes],
    ['taken', time(row.taken)], ['modified', time(row.modified)], ['camera', row.camera && shown(row.camera)],
    ['place', row.latitude != null && row.longitude != null && `${row.latitude.toFixed(4)}, ${row.longitude.toFixed(4)}`],
  ];
  return make('dl', { class: 'facts' }, ...known.filter(([, value]) => value).map(([key, value]) => make('div', {}, make('dt', {}, say(key)), make('dd', {}, value))));
}

async function related(row, what, where, query) {
  const mine = state.ask;
  let found;
  try { found = (await ask(pictureAt(row.id, what), query)).pictures; } catch { found = []; }
  if (mine !== state.ask) return;
  const strip = find(where, dialog);
  strip.replaceChildren(...found.map(other => make('button', { type: 'button', class: 'small', 'aria-label': shown(other.name), title: shown(other.name), onclick: () => open(null, other, asked, version) }, make('img', { alt: '', loading: 'lazy', src: pictureAt(other.id, 'thumbnail', { v: version }) }))));
  if (what === 'duplicates' && !found.length) strip.replaceChildren(make('p', { class: 'soft' }, say('noneSame')));
}

// ---- Maps over the picture

async function overlay() {
  const mine = state.ask, mode = state.mode, readout = find('.readout span', dialog), canvas = find('.heat', dialog);
  if (mode !== 'attention') find('.cursor', dialog).hidden = find('.readout input', dialog).hidden = true;
  if (mode === 'plain') { canvas.hidden = true; readout.textContent = ''; return; }
  if (mode === 'why' && !isAsked()) { canvas.hidden = true; readout.textContent = say('noQuery'); return; }
  try {
    if (mode === 'why') state.heat ??= await ask(pictureAt(state.row.id, 'heat'), asked);
    else if (state.attention?.layer !== state.layer) state.attention = await ask(pictureAt(state.row.id, 'attention'), { layer: state.layer });
  } catch (error) {
    if (mine === state.ask) { canvas.hidden = true; readout.textContent = error.message; }
    return;
  }
  if (mine !== state.ask || mode !== state.mode) return;
  if (mode === 'why') {
    const all = state.heat.values.flat();
    paint(canvas, state.heat.values, state.heat.box);
    readout.textContent = say('whyAbout', { low: Math.min(...all).toFixed(2), high: Math.max(...all).toFixed(2) });
  } else showAttention(canvas, readout);
}

function showAttention(canvas, readout) {
  const found = state.attention;
  state.layer = found.layer;
  if (!found.layers) { canvas.hidden = true; readout.textContent = say('noAttention'); return; }
  const height = found.from.length, width = found.from[0].length;
  state.at ??= [Math.floor(height / 2), Math.floor(width / 2)];
  const [row, column] = [Math.min(state.at[0], height - 1), Math.min(state.at[1], width - 1)];
  paint(canvas, found.from[row][column], found.box);
  const cursor = find('.cursor', dialog), [left, top, right, bottom] = found.box;
  cursor.hidden = false;
  place(cursor, [left + (right - left) * column / width, top + (bottom - top) * row / height, left + (right - left) * (column + 1) / width, top + (bottom - top) * (row + 1) / height]);
  const choose = find('.readout input', dialog), text = say('attentionAbout', { layer: found.layer + 1, layers: found.layers });
  choose.hidden = found.layers < 2;
  choose.max = found.layers;
  choose.value = found.layer + 1;
  if (readout.textContent !== text) readout.textContent = text;
}

/** Where the pointer, or an arrow key, is in the attention map. */
function pointing(view) {
  view.tabIndex = 0;
  view.setAttribute('aria-label', say('attention'));
  view.setAttribute('role', 'group');
  const move = event => {
    const found = state.attention;
    if (state.mode !== 'attention' || !found?.layers) return;
    const bounds = view.getBoundingClientRect(), [left, top, right, bottom] = found.box;
    const share = (value, low, high, count) => Math.min(count - 1, Math.max(0, Math.floor((value - low) / (high - low) * count)));
    state.at = [share((event.clientY - bounds.top) / bounds.height, top, bottom, found.from.length), share((event.clientX - bounds.left) / bounds.width, left, right, found.from[0].length)];
    showAttention(find('.heat', dialog), find('.readout span', dialog));
  };
  view.addEventListener('pointermove', move);
  view.addEventListener('pointerdown', move);
  view.addEventListener('keydown', event => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key], found = state.attention;
    if (!by || state.mode !== 'attention' || !found?.layers) return;
    event.preventDefault();
    event.stopPropagation();
    const within = (value, count) => Math.min(count - 1, Math.max(0, value));
    state.at = [within(state.at[0] + by[0], found.from.length), within(state.at[1] + by[1], found.from[0].length)];
    showAttention(find('.heat', dialog), find('.readout span', dialog));
  });
}

function place(element, [left, top, right, bottom]) {
  for (const [side, share] of Object.entries({ left, top, width: right - left, height: bottom - top })) element.style[side] = `${100 * share}%`;
}

function paint(canvas, values, box) {
  const height = values.length, width = values[0].length, all = values.flat(), low = Math.min(...all), high = Math.max(...all);
  const pixels = new ImageData(width, height);
  all.forEach((value, index) => {
    const at = (value - low) / Math.max(1e-9, high - low) * (RAMP.length - 1), step = Math.min(RAMP.length - 2, Math.floor(at)), rest = at - step;
    for (let channel = 0; channel < 3; channel++) pixels.data[4 * index + channel] = RAMP[step][channel] + rest * (RAMP[step + 1][channel] - RAMP[step][channel]);
    pixels.data[4 * index + 3] = 255;
  });
  canvas.width = width;
  canvas.height = height;
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  place(canvas, box);
  canvas.hidden = false;
}
