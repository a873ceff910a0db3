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
  const found = await ask('/api/duplicates', { limit: 200 }, { signal });
  page.status(found.total ? say('aboutDuplicates', { count: number(found.total) }) : say('noDuplicates'));
  find('#grid').hidden = true;
  const groups = find('#groups');
  groups.hidden = false;
  groups.replaceChildren(...found.groups.map(group => make('section', { class: 'group' }, ...group.pictures.map(row => make('figure', {},
    make('button', { type: 'button', class: 'small', 'aria-label': shown(row.name), onclick: () => page.open(row) }, make('img', { alt: '', loading: 'lazy', src: pictureAt(row.id, 'thumbnail') })),
    make('figcaption', {}, make('bdi', {}, shown(row.name)), make('span', { class: 'soft' }, `${row.width} × ${row.height}`)))))));
}
