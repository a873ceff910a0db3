// A gallery of any length: only the tiles in sight exist, and rows are asked for in blocks when they come into sight.
//
// Tiles are square and placed by a transform; those that leave at one end come back at the other. No browser draws an
// element of more than some 16 million pixels, so the scroll of a longer gallery is scaled.

import { find, make, pictureAt, say, shown } from '/page.js';

const BLOCK = 200, GAP = 6, TALLEST = 15e6, BEYOND = 400, FAST = 4000;  // rows, pixels, pixels per second

export class Grid {
  /** `load(offset, limit)` gives rows; `open(place)` is called with the place that was chosen. */
  constructor(element, open) {
    this.element = element;
    this.open = open;
    this.tiles = new Map();  // place -> tile
    this.spare = [];
    this.side = 140;
    this.reset(0, null, 0);
    addEventListener('scroll', () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.schedule()).observe(element);
    element.addEventListener('click', event => {
      const tile = event.target.closest('.tile');
      if (tile) this.choose(tile.place);
    });
    element.addEventListener('keydown', event => this.move(event));
  }

  /** Show other pictures: how many, where rows come from, and which version of the index they are of. */
  reset(total, load, version) {
    this.total = total;
    this.load = load;
    this.version = version;
    this.rows = new Map();
    this.asked = new Set();
    this.current = 0;
    if (this.top !== undefined && scrollY > this.top) scrollTo(0, 0);
    for (const tile of this.tiles.values()) this.retire(tile);
    this.tiles.clear();
    this.schedule();
  }

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(now => { this.waiting = false; this.draw(now); });
  }

  measure() {
    const width = this.element.clientWidth;
    this.columns = Math.max(2, Math.floor((width + GAP) / (this.side + GAP)));
    this.step = (width + GAP) / this.columns;
    this.height = Math.ceil(this.total / this.columns) * this.step;
    this.tall = Math.min(this.height, TALLEST);
    this.top = this.element.offsetTop;
    if (this.element.style.height !== `${this.tall}px`) this.element.style.height = `${this.tall}px`;
  }

  /** Where the gallery's own scroll is, and how far tiles have to be moved for it to be seen there. */
  scrolled() {
    const at = scrollY - this.top;
    if (this.height <= this.tall) return { at, shift: 0 };
    const real = Math.max(0, at) * (this.height - innerHeight) / (this.tall - innerHeight);
    return { at: real, shift: at - real };
  }

  draw(now) {
    this.measure();
    if (this.element.hidden) return;
    const { at, shift } = this.scrolled();
    const speed = Math.abs(at - (this.last ?? at)) / Math.max(1, now - (this.drawn ?? now)) * 1000;
    this.last = at;
    this.drawn = now;
    const first = Math.max(0, Math.floor((at - BEYOND) / this.step)) * this.columns;
    const end = Math.min(this.total, Math.ceil((at + innerHeight + BEYOND) / this.step) * this.columns);
    for (const [place, tile] of this.tiles) if (place < first || place >= end) { this.retire(tile); this.tiles.delete(place); }
    for (let place = first; place < end; place++) {
      const tile = this.tiles.get(place) || this.add(place);
      const x = place % this.columns * this.step, y = Math.floor(place / this.columns) * this.step + shift;
      tile.style.transform = `translate(${x}px, ${y}px)`;
      if (tile.width !== this.step) { tile.width = this.step; tile.style.width = tile.style.height = `${this.step - GAP}px`; }
    }
    if (speed > FAST) {  // what rushes past is not asked for
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.schedule(), 80);
      return;
    }
    for (let block = Math.floor(first / BLOCK); block * BLOCK < end; block++) this.want(block);
    for (const [place, tile] of this.tiles) this.fill(tile, this.rows.get(place));
  }

  add(place) {
    const tile = this.spare.pop() || this.element.appendChild(make('button', { class: 'tile', type: 'button' }, make('img', { alt: '', decoding: 'async', draggable: 'false' })));
    tile.hidden = false;
    tile.place = place;
    tile.tabIndex = place === this.current ? 0 : -1;
    this.tiles.set(place, tile);
    return tile;
  }

  retire(tile) {
    tile.hidden = true;
    tile.row = null;
    tile.classList.remove('here');
    tile.firstChild.removeAttribute('src');
    this.spare.push(tile);
  }

  fill(tile, row) {
    if (!row || tile.row === row) return;
    tile.row = row;
    const name = shown(row.name), image = tile.firstChild;
    tile.setAttribute('aria-label', name);
    tile.title = row.score == null ? name : `${name}\n${say('score')} ${row.score.toFixed(3)}`;
    image.onload = () => tile.classList.add('here');
    image.src = pictureAt(row.id, 'thumbnail', { v: this.version });
  }

  async want(block) {
    if (this.asked.has(block) || !this.load) return;
    this.asked.add(block);
    const load = this.load;
    try {
      const rows = await load(block * BLOCK, BLOCK);
      if (load !== this.load) return;
      rows.forEach((row, index) => this.rows.set(block * BLOCK + index, row));
      this.schedule();
    } catch {
      this.asked.delete(block);  // it is asked for again when it is next in sight
    }
  }

  /** The row at a place, fetched if it is not there yet. */
  async row(place) {
    if (!this.rows.has(place)) await this.want(Math.floor(place / BLOCK));
    return this.rows.get(place);
  }

  choose(place) {
    this.point(place, false);
    this.open(place);
  }

  /** Make one tile the one that keys are for, and bring it into sight. */
  point(place, focus = true) {
    this.current = Math.min(Math.max(0, place), this.total - 1);
    const y = Math.floor(this.current / this.columns) * this.step, { at } = this.scrolled();
    const above = find('header').offsetHeight;
    const to = y < at + above ? y - above : y + this.step > at + innerHeight ? y + this.step - innerHeight + GAP : at;
    if (to !== at) scrollTo(0, this.top + (this.height <= this.tall ? to : to * (this.tall - innerHeight) / (this.height - innerHeight)));
    this.draw(performance.now());
    for (const [other, tile] of this.tiles) tile.tabIndex = other === this.current ? 0 : -1;
    if (focus) this.tiles.get(this.current)?.focus({ preventScroll: true });
  }

  move(event) {
    const page = Math.max(1, Math.floor(innerHeight / this.step) - 1) * this.columns;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey || !this.total) return;
    event.preventDefault();
    const to = this.current + by;
    if (Math.abs(by) === this.columns && (to < 0 || to >= this.total)) return;
    this.point(to);
  }
}
