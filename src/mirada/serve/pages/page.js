// What all modules share: elements, texts in the chosen language, requests.

export const find = (selector, within = document) => within.querySelector(selector);

/** An element with attributes, properties that begin with "on", and children. Text is text, never HTML. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** An icon of one path, drawn with a stroke. */
export function icon(path) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg'), line = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}

/** A name as one line, whatever a file is called: what moves or turns text is spelled out. */
export const shown = name => name.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, odd => '\\u' + odd.charCodeAt(0).toString(16).padStart(4, '0'));

// ---- Texts

const languages = ['en', 'es'];
let texts = {};
export let language = 'en';

export async function speak(chosen) {
  language = languages.includes(chosen) ? chosen : 'en';
  texts = await (await fetch(`/texts/${language}.json`)).json();
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll('[data-text]')) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll('[data-label]')) element.setAttribute('aria-label', say(element.dataset.label));
  for (const element of document.querySelectorAll('[data-title]')) element.title = say(element.dataset.title);
}
export const say = (key, values = {}) => texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
export const number = value => value.toLocaleString(language);

// ---- Requests

/** JSON from the server; an Error whose message is the server's own sentence if it refuses. */
export async function ask(path, query = {}, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path, query), options);
  } catch (error) {
    throw error.name === 'AbortError' ? error : new Error(say('offline'));
  }
  if (answer.ok) return answer.json();
  if (answer.status === 401) location.reload();
  throw new Error((await answer.json().catch(() => ({}))).error || answer.statusText);
}
export function address(path, query = {}) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) for (const one of [value].flat()) if (one !== null && one !== undefined && one !== '') given.append(name, one);
  return given.size ? `${path}?${given}` : path;
}
export const pictureAt = (id, what, query) => address(`/api/pictures/${id}/${what}`, query);
