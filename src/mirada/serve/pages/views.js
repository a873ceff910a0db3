// What can be looked at besides what was searched for. A view is a function of the page; a new one is one more entry
// here and its name in texts/.

import { ask, find, make, number, pictureAt, say, shown } from '/page.js';

export const views = { gallery, outliers, duplicates };

async function gallery(page, signal) {
  const [sort, descending] = page.sort(), given = { sort, descending, where: page.where() };
  const first = await ask('/api/pictures', { ...given, limit: 200 }, { signal });
  page.grid.reset(first.total, async (offset, limit) => (offset === 0 ? first : await ask('/api/pictures', { ...given, offset, limit })).pictures, first.version);
  page.status(first.total ? (first.total === 1 ? say('one') : say('count', { count: number(first.total) })) : say('empty'));
}

async function outliers(page, signal) {
  page.status(say('comparing'));
  const first = await ask('/api/outliers', { limit: 200 }, { signal });
  page.grid.reset(first.total, async (offset, limit) => (offset === 0 ? first : await ask('/api/outliers', { offset, limit })).pictures, first.version);
  page.status(say('aboutOutliers'));
}

async function duplicates(page, signal) {
  page.status(say('comparing'));
  page.grid.reset(0, null, 0);
  const groups = find('#groups'), more = make('button', { type: 'button', class: 'button', onclick: () => add(more.offset).catch(failed) }, say('moreGroups'));
  const failed = error => { if (error.name !== 'AbortError') page.status(error.message); };
  async function add(offset) {
    const found = await ask('/api/duplicates', { offset, limit: 200 }, { signal });
    page.status(found.total ? say('aboutDuplicates', { count: number(found.total) }) : say('noDuplicates'));
    if (!offset) { page.grid.reset(0, null, found.version); groups.replaceChildren(); }
    more.remove();
    groups.append(...found.groups.map(group => section(page, group, found.version)));
    more.offset = offset + found.groups.length;
    if (found.groups.length && more.offset < found.total) groups.append(more);
  }
  await add(0);
  find('#grid').hidden = true;
  groups.hidden = false;
}

function section(page, group, version) {
  return make('section', { class: 'group' }, ...group.pictures.map(row => make('figure', {},
    make('button', { type: 'button', class: 'small', 'aria-label': shown(row.name), onclick: () => page.open(row) }, make('img', { alt: '', loading: 'lazy', src: pictureAt(row.id, 'thumbnail', { v: version }) })),
    make('figcaption', {}, make('bdi', {}, shown(row.name)), make('span', { class: 'soft' }, `${row.width} × ${row.height}`)))));
}
