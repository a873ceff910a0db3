// The API, drawn from openapi.json.

import { find, make } from '/page.js';

const api = await (await fetch('/api/openapi.json')).json();
find('#about').textContent = api.info.description;

function kind(schema = {}) {
  if (schema.$ref) return schema.$ref.split('/').pop();
  if (schema.anyOf) return schema.anyOf.filter(one => one.type !== 'null').map(kind).join(' or ');
  return schema.type === 'array' ? `list of ${kind(schema.items)}` : schema.type || 'any';
}
function command(path, method, route) {
  const wanted = (route.parameters || []).filter(given => given.in === 'query' && ['q', 'where'].includes(given.name));
  const url = location.origin + path.replace('{number}', 'ID').replace('{key}', 'UPLOAD');
  if (method === 'post') return `curl --data-binary @picture.jpg ${url}`;
  return wanted.length ? `curl -G ${url} ${wanted.map(given => `--data-urlencode '${given.name}=…'`).join(' ')}` : `curl ${url}`;
}
function properties(schema) {
  const made = api.components?.schemas?.[kind(schema)]?.properties;
  return made ? make('p', { class: 'soft' }, `${kind(schema)}: ${Object.entries(made).map(([name, one]) => `${name} (${kind(one)})`).join(', ')}`) : '';
}

for (const [path, methods] of Object.entries(api.paths)) for (const [method, route] of Object.entries(methods)) {
  const answer = route.responses['200']?.content?.['application/json']?.schema;
  find('#routes').append(make('section', {},
    make('h2', {}, make('code', {}, `${method.toUpperCase()} ${path}`)),
    make('p', {}, route.description || route.summary),
    make('dl', {}, ...(route.parameters || []).map(given => make('div', {}, make('dt', {}, make('code', {}, given.name)), make('dd', {}, `${kind(given.schema)}${given.schema.default !== undefined && given.schema.default !== '' ? `, ${JSON.stringify(given.schema.default)} by default` : ''}`, given.description ? make('span', { class: 'soft' }, ` ${given.description}`) : '')))),
    answer ? properties(answer) : '',
    make('pre', { tabindex: 0 }, command(path, method, route))));
}
