// The page as a whole: which view is shown, what is asked for, and what keys do.

import { ask, find, language, make, number, say, speak } from '/page.js';
import { Grid } from '/grid.js';
import * as picture from '/picture.js';
import * as search from '/search.js';
import { views } from '/views.js';

const SORTS = { newest: ['date', true], oldest: ['date', false], byPath: ['path', false], largest: ['size', true], widest: ['width', true], byCamera: ['camera', false] };
const HITS = 500;
const speaking = speak(localStorage.language || navigator.language.slice(0, 2));
const index = await ask('/api/index').catch(error => {
  find('#status').replaceChildren(make('span', { class: 'wrong' }, error.message));
  return new Promise(() => {});  // there is nothing to show until the page is loaded again
});
await speaking;
let view = 'gallery', all = false, asking = null, asked = { q: '', plus: [], minus: [] };

const grid = new Grid(find('#grid'), async place => {
  const row = await grid.row(place);
  if (row) picture.open(place, row, asked, grid.version);
});
picture.begin(grid);

// ---- What is shown

export const page = {
  grid, index,
  sort: () => SORTS[find('#sort').value], where: () => find('#where').value.trim() || null,
  status(text, ...more) { find('#status').replaceChildren(text, ...more); },
  open: row => picture.open(null, row, asked, grid.version),
};

/** Show what the search bar, the options and the view ask for. `settled` turns typed words into chips. */
async function show(settled = false) {
  asking?.abort();
  const mine = asking = new AbortController();
  asked = search.query();
  const isSearch = search.isAsked(asked);
  if (isSearch) view = 'found';
  else if (view === 'found') view = 'gallery';
  remember();
  drawViews();
  find('#grid').hidden = false;
  find('#groups').hidden = true;
  find('#where').disabled = !isSearch && view !== 'gallery';  // other views are of all pictures
  try {
    if (isSearch) await showHits(settled && find('#words').value, mine);
    else await views[view](page, mine.signal);
  } catch (error) {
    if (error.name !== 'AbortError' && mine === asking) fail(error);
  }
}

/** `settled` is what stood in the box when it was sent off, or false; what was typed since is no part of this answer. */
async function showHits(settled, mine) {
  const timer = setTimeout(() => page.status(say('busy')), 400);
  let found;
  try {
    found = await ask('/api/search', { ...asked, where: page.where(), k: HITS, all: all || null }, { signal: mine.signal });
  } finally {
    clearTimeout(timer);
  }
  if (mine !== asking) return;
  if (settled !== false && settled === find('#words').value) { search.settle(found.terms); asked = search.query(); remember(); }
  const count = found.pictures.length;
  grid.reset(count, async (offset, limit) => found.pictures.slice(offset, offset + limit), found.version);
  if (!count) page.status(say('none') + ' ', make('button', { type: 'button', class: 'button', onclick: () => { all = true; show(); } }, say('showAll')));
  else if (count === 1 && !all) page.status(say('oneHit'));
  else page.status(say(all ? 'nearest' : count < HITS ? 'hits' : 'bestHits', { count: number(count) }));
}

function fail(error) {
  grid.reset(0, null, 0);
  page.status(make('span', { class: 'wrong' }, error.message));
}

function drawViews() {
  const names = [...Object.keys(views), ...(view === 'found' ? ['found'] : [])];
  find('#views').replaceChildren(...names.map(name => make('button', { type: 'button', 'aria-current': name === view ? 'page' : false, onclick: () => go(name) }, say(name))));
  find('#views [aria-current]').scrollIntoView({ block: 'nearest', inline: 'nearest' });
  find('#heading').textContent = say(view);
  document.title = `${say(view)} – Mirada`;
}

export function go(name) {
  if (name === 'found') return;
  view = name;
  scrollTo(0, 0);
  if (search.isAsked(search.query())) search.clear();  // which shows it
  else show();
}

// ---- The address says what is shown, so that going back works

function remember() {
  const given = new URLSearchParams();
  for (const [key, values] of Object.entries(asked)) for (const value of [values].flat()) if (value) given.append(key, value);
  if (page.where()) given.set('where', page.where());
  if (view !== 'gallery' && view !== 'found') given.set('view', view);
  const to = given.size ? `/?${given}` : '/';
  if (to === location.pathname + location.search) return;
  const typing = view === 'found' && new URLSearchParams(location.search).has('q') && given.has('q');
  history[typing ? 'replaceState' : 'pushState'](null, '', to);
}
function restore(typed = '') {
  const given = new URLSearchParams(location.search);
  view = views[given.get('view')] ? given.get('view') : 'gallery';
  find('#where').value = given.get('where') || '';
  search.restore(given);
  if (typed) find('#words').value = typed;
  all = false;
  show(given.has('q') && !typed);
}
addEventListener('popstate', () => restore());

// ---- Options

function drawSorts() {
  const chosen = find('#sort').value || localStorage.sort || 'newest';
  find('#sort').replaceChildren(...Object.keys(SORTS).map(key => make('option', { value: key, selected: key === chosen }, say(key))));
}
function setTheme(theme) {
  localStorage.theme = find('#theme').value = theme;
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
function setSize(side) {
  grid.side = +side;
  localStorage.size = side;
  grid.schedule();
}
const isDark = () => (document.documentElement.dataset.theme || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')) === 'dark';
find('#tools').addEventListener('click', () => {
  const more = find('#more');
  more.hidden = !more.hidden;
  find('#tools').setAttribute('aria-expanded', !more.hidden);
});
find('#where').addEventListener('change', () => show());
find('#sort').addEventListener('change', event => { localStorage.sort = event.target.value; show(); });
find('#size').addEventListener('input', event => setSize(event.target.value));
find('#theme').addEventListener('change', event => setTheme(event.target.value));
find('#language').addEventListener('change', async event => {
  localStorage.language = event.target.value;
  await speak(event.target.value);
  drawSorts();
  search.drawChips();
  show();
});
find('.mark').addEventListener('click', event => { event.preventDefault(); go('gallery'); });

// ---- Keys

const KEYS = [
  ['/', 'keySearch'], ['← ↑ ↓ →', 'keyMove'], ['Enter', 'keyOpen'], ['Esc', 'keyClose'], ['+ −', 'keyPlus'], ['g o u', 'keyViews'], ['1 2 3', 'keyModes'], ['d', 'keyDark'], ['?', 'keyHelp'],
];
function help() {
  const dialog = find('#keys');
  dialog.replaceChildren(
    make('h2', { id: 'keys-name' }, say('keysTitle')),
    make('dl', {}, ...KEYS.map(([keys, text]) => make('div', {}, make('dt', {}, ...keys.split(' ').flatMap(key => [make('kbd', {}, key), ' '])), make('dd', {}, say(text))))),
    make('button', { type: 'button', class: 'button', onclick: () => dialog.close() }, say('close')));
  dialog.showModal();
}
find('#help').addEventListener('click', help);

const keys = {
  '/': () => find('#words').focus(), '?': help, d: () => setTheme(isDark() ? 'light' : 'dark'),
  g: () => go('gallery'), o: () => go('outliers'), u: () => go('duplicates'),
  '+': () => refine(1), '-': () => refine(-1), Escape: () => { if (search.isAsked(search.query())) search.clear(); },
};
const inPicture = {
  ArrowLeft: () => picture.step(-1), ArrowRight: () => picture.step(1), '+': () => picture.refine(1), '-': () => picture.refine(-1),
  1: () => picture.setModeByNumber(0), 2: () => picture.setModeByNumber(1), 3: () => picture.setModeByNumber(2), d: keys.d,
};
async function refine(weight) {
  const tile = document.activeElement;
  if (tile?.row) search.addPicture(String(tile.row.id), weight, tile.row.name);
}
addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches?.('input:not([type=range]), select, textarea');
  if (typing && event.key === 'Escape') event.target.blur();
  if (typing && event.key === 'ArrowDown' && event.target.id === 'words' && grid.total) { event.preventDefault(); grid.point(grid.current); }
  if (typing || find('#keys').open || event.target.matches?.('input[type=range]') && event.key.startsWith('Arrow')) return;
  const action = (picture.isOpen() ? inPicture : keys)[event.key];
  if (action) { event.preventDefault(); action(); }
});

// ---- Begin

find('#language').value = language;
find('#size').value = localStorage.size || (innerWidth < 600 ? 100 : 140);
setTheme(localStorage.theme || 'auto');
setSize(find('#size').value);
drawSorts();
search.begin((settled = false) => { all = false; show(settled); }, fail, index.words);
restore(find('#words').value);  // which holds what somebody typed who did not wait for the page
