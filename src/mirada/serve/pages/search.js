// The search bar: terms as chips with a plus or minus, words that are being typed, pictures that are dropped.

import { ask, find, make, pictureAt, say, shown } from '/page.js';

const LARGEST = 64 << 20;  // bytes of a picture, as the server takes them
const PAUSE = 250;  // ms without a key, after which what is typed is looked for

/** Terms are {weight, words} or {weight, picture: id or upload, name}. */
export const terms = [];
let changed = () => {}, hint = 'search';

/** What the server is asked with: chips and what stands in the box. */
export function query() {
  const words = terms.filter(term => term.words !== undefined).map((term, index) => {
    const sign = term.weight < 0 ? '- ' : index ? '+ ' : '', weight = Math.abs(term.weight);
    return sign + (weight === 1 ? '' : `${weight}*`) + quoted(term.words);
  });
  const typed = find('#words').value.trim();
  if (typed) words.push(/^[+-]\s/.test(typed) || !words.length ? typed : `+ ${typed}`);
  const pictures = sign => terms.filter(term => term.picture !== undefined && Math.sign(term.weight) === sign).map(term => term.picture);
  return { q: words.join(' '), plus: pictures(1), minus: pictures(-1) };
}
const quoted = words => words.includes('"') ? `“${words}”` : `"${words}"`;
export const isAsked = asked => Boolean(asked.q || asked.plus.length || asked.minus.length);

/** Take a query from the address. */
export function restore(given) {
  terms.length = 0;
  for (const [key, weight] of [['plus', 1], ['minus', -1]]) for (const picture of given.getAll(key)) terms.push({ weight, picture });
  find('#words').value = given.get('q') || '';
  drawChips();
}

export function addPicture(picture, weight, name) {
  const known = terms.find(term => term.picture === picture);
  if (known) known.weight = weight;
  else terms.push({ weight, picture, name });
  drawChips();
  changed();
}

export function clear() {
  terms.length = 0;
  find('#words').value = '';
  drawChips();
  changed();
}

/** Words as the server understood them become chips. */
export function settle(understood) {
  for (let at = terms.length - 1; at >= 0; at--) if (terms[at].words !== undefined) terms.splice(at, 1);
  terms.unshift(...understood);
  find('#words').value = '';
  drawChips();
}

export function drawChips() {
  find('#words').placeholder = terms.length ? '' : say(hint);
  find('#chips').replaceChildren(...terms.map((term, index) => {
    const name = term.words ?? (term.name ? shown(term.name) : say('sent')), less = term.weight < 0;
    const weight = Math.abs(term.weight) === 1 ? '' : `${Math.abs(term.weight)} × `;
    const turn = make('button', { type: 'button', class: 'sign', 'aria-label': say('turn', { name, sign: say(less ? 'less' : 'more') }), onclick: () => { term.weight = -term.weight; drawChips(); changed(); } }, less ? '−' : '+');
    const remove = make('button', { type: 'button', class: 'remove', 'aria-label': say('remove', { name }), onclick: () => { terms.splice(index, 1); drawChips(); changed(); find('#words').focus(); } }, '×');
    const body = term.picture === undefined ? make('bdi', {}, weight + term.words) : make('img', { alt: name, src: String(term.picture).startsWith('u') ? `/api/uploads/${term.picture}/thumbnail` : pictureAt(term.picture, 'thumbnail') });
    return make('li', { class: less ? 'chip less' : 'chip' }, turn, body, remove);
  }));
}

async function send(file) {
  if (!file) return;
  if (file.size > LARGEST) throw new Error(say('tooLarge'));
  const { upload } = await ask('/api/uploads', {}, { method: 'POST', body: file });
  addPicture(upload, 1, file.name);
}

/** `onChange(settled)` is called when something else is to be looked for; `onError` is told what went wrong; `reads` says
 * whether the model knows words. */
export function begin(onChange, onError, reads) {
  changed = onChange;
  hint = reads ? 'search' : 'searchPictures';
  const words = find('#words');
  let timer;
  words.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(changed, PAUSE); });
  words.addEventListener('keydown', event => {
    if (event.key === 'Backspace' && !words.value && terms.length) { terms.pop(); drawChips(); changed(); }
  });
  find('#search').addEventListener('submit', event => {
    event.preventDefault();
    clearTimeout(timer);
    changed(true);
  });
  find('#choose').addEventListener('change', event => { send(event.target.files[0]).catch(onError); event.target.value = ''; });
  const drop = find('#drop');
  const holdsFile = event => [...event.dataTransfer?.types ?? []].includes('Files');
  addEventListener('dragenter', event => { if (holdsFile(event)) drop.hidden = false; });
  addEventListener('dragover', event => { if (holdsFile(event)) event.preventDefault(); });
  addEventListener('dragleave', event => { if (!event.relatedTarget) drop.hidden = true; });
  addEventListener('drop', event => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    drop.hidden = true;
    send(event.dataTransfer.files[0]).catch(onError);
  });
  addEventListener('paste', event => {
    const file = [...event.clipboardData?.files ?? []][0];
    if (file) send(file).catch(onError);
  });
}
