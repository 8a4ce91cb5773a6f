'use strict';
// Draws the timeline. Only what is in view is drawn, and of marks that share a pixel the worst, so that a year of
// occurrences moves as easily as a minute.
const data = JSON.parse(document.getElementById('data').textContent);
const el = id => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';
const LEFT = 150, RIGHT = 14, TASK_LANES = 16;
const WORST = { bad: 4, unknown: 3, late: 2, quiet: 1, good: 0 };
let view = { from: 0, to: data.end };

const seconds = t => (t / 1e6).toFixed(3) + ' s';
const clock = t => new Date(data.epoch_ms + t / 1000).toISOString().replace('T', ' ').replace('Z', ' UTC');

function make(name, attributes, parent, text) {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}

// What has marks: lanes of the upper part by node, of the lower part by task.
function fireClass(fire) {
  if (fire.late_ms > data.bound_ms || fire.late_ms < 0) return 'bad';
  return fire.late_ms > 1500 ? 'late' : 'good';
}
const marks = [];
const shown = Math.min(data.tasks.length, TASK_LANES);
const taskLane = task => data.tasks.length <= TASK_LANES || task < TASK_LANES - 1 ? task : TASK_LANES - 1;
for (const fire of data.fires) marks.push({
  t: fire.t, lane: taskLane(fire.task), kind: fireClass(fire),
  tip: `${data.tasks[fire.task]} fired ${fire.late_ms} ms late\noccurrence ${fire.occurrence}\nrun ${fire.run}: ` +
    `${fire.state} after ${fire.attempts} attempt${fire.attempts === 1 ? '' : 's'}, node ${fire.node}`,
});
for (const lapse of data.lapses) marks.push({
  t: lapse.t, lane: taskLane(lapse.task), kind: lapse.missed ? 'bad' : 'quiet',
  tip: `${data.tasks[lapse.task]}: ${lapse.count} did not fire (${lapse.reason})`,
});
marks.sort((a, b) => a.t - b.t);
const deliveries = data.deliveries.map(d => ({
  t: d.t, node: d.node, kind: d.status === null ? 'unknown' : d.status < 300 ? 'good' : 'late',
  tip: `delivery from node ${d.node}\nrun ${d.run}, attempt ${d.attempt}: ${d.status === null ? 'no answer' : d.status}`,
}));
const operations = data.operations.map(o => ({
  t: o.t, node: o.node, kind: o.outcome === 'done' ? 'good' : o.outcome === 'refused' ? 'quiet' : 'unknown',
  tip: `${o.what}\nnode ${o.node}, ${((o.to - o.t) / 1000).toFixed(1)} ms, ${o.outcome}`,
}));

// Faults that overlap get rows of their own.
const rows = [];
for (const fault of [...data.faults].sort((a, b) => a.from - b.from)) {
  let row = rows.findIndex(end => end <= fault.from);
  if (row < 0) row = rows.push(0) - 1;
  rows[row] = fault.to;
  fault.row = row;
}

// Where everything stands, from top to bottom.
const FAULT = 20, NODE = 34, TASK = 22, TOP = 30;
const layout = { faults: TOP, nodes: TOP + rows.length * FAULT + 8 };
layout.operations = layout.nodes + data.nodes.length * NODE + 10;
layout.deliveries = layout.operations + TASK;
layout.tasks = layout.deliveries + TASK + 8;
layout.bottom = layout.tasks + shown * TASK + 8;
const nodeY = id => layout.nodes + data.nodes.findIndex(lane => lane.node === id) * NODE;
const laneName = lane =>
  lane === TASK_LANES - 1 && data.tasks.length > TASK_LANES ? `${data.tasks.length - TASK_LANES + 1} more` : data.tasks[lane];

const chart = el('chart');
chart.setAttribute('height', layout.bottom);
let width = 1000;
const x = t => LEFT + (t - view.from) / (view.to - view.from) * (width - LEFT - RIGHT);
const timeAt = px => view.from + (px - LEFT) / (width - LEFT - RIGHT) * (view.to - view.from);
const inView = (from, to) => to >= view.from && from <= view.to;
let hover = [];

function bar(parent, from, to, y, height, cls, tip) {
  if (!inView(from, to)) return;
  const left = Math.max(x(from), LEFT), right = Math.min(x(to), width - RIGHT);
  make('rect', { x: left, y, width: Math.max(right - left, 1.5), height, class: cls }, parent);
  hover.push({ left, right: Math.max(right, left + 3), top: y, bottom: y + height, tip, rank: 0 });
  return [left, right];
}

// One line for each pixel and lane: the worst of those that meet there, and how many they are.
function ticks(parent, items, top, height, laneOf) {
  const bins = new Map();
  for (const item of items) {
    if (item.t < view.from || item.t > view.to) continue;
    const px = Math.round(x(item.t)), key = laneOf(item) * 100000 + px;
    const bin = bins.get(key);
    if (!bin) bins.set(key, { px, item, count: 1 });
    else { bin.count++; if (WORST[item.kind] > WORST[bin.item.kind]) bin.item = item; }
  }
  for (const [, { px, item, count }] of bins) {
    const y = top(item), short = item.kind === 'good' ? .28 : item.kind === 'bad' ? 0 : .14;
    make('line', { x1: px, x2: px, y1: y + height * short, y2: y + height * (1 - short), class: item.kind,
      'stroke-width': item.kind === 'bad' ? 2.5 : 1.5 }, parent);
    const more = count > 1 ? `\nand ${count - 1} more at this point: zoom in` : '';
    hover.push({ left: px - 3, right: px + 3, top: y, bottom: y + height, rank: 1 + WORST[item.kind],
      tip: `${seconds(item.t)} · ${clock(item.t)}\n${item.tip}${more}` });
  }
}

function axis(parent) {
  const span = view.to - view.from, steps = [1, 2, 5];
  let step = 100;
  for (let i = 0; span / step > (width - LEFT) / 90; i++) step = 100 * steps[i % 3] * 10 ** Math.floor(i / 3);
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
    make('line', { x1: x(t), x2: x(t), y1: TOP - 6, y2: layout.bottom, class: 'rule' }, parent);
    const label = step >= 1e6 ? (t / 1e6).toLocaleString('en') + ' s' : step >= 1000 ? (t / 1e6).toFixed(3) + ' s' : (t / 1000).toFixed(1) + ' ms';
    make('text', { x: x(t), y: 15, 'text-anchor': x(t) < LEFT + 12 ? 'start' : 'middle', class: 'faint' }, parent, label);
  }
}

function draw() {
  width = chart.clientWidth || 1000;
  chart.replaceChildren();
  hover = [];
  const defs = make('defs', {}, chart);
  const clip = make('clipPath', { id: 'inside' }, defs);
  make('rect', { x: LEFT, y: 0, width: width - LEFT - RIGHT, height: layout.bottom }, clip);
  const head = make('marker', { id: 'head', viewBox: '0 0 6 6', refX: 5, refY: 3, markerWidth: 6, markerHeight: 6, orient: 'auto' }, defs);
  make('path', { d: 'M0 0L6 3L0 6z', fill: 'currentColor' }, head);
  const group = make('g', { 'clip-path': 'url(#inside)' }, chart);
  const label = (y, text) => make('text', { x: 8, y }, chart, text.length > 22 ? text.slice(0, 21) + '…' : text);

  axis(group);
  if (data.faults.length) label(layout.faults + 14, 'faults');
  for (const lane of data.nodes) {
    const y = nodeY(lane.node);
    label(y + 20, `node ${lane.node}`);
    for (const s of lane.states) bar(group, s.from, s.to, y + 4, NODE - 8, s.kind,
      `node ${lane.node} ${s.what}\n${seconds(s.from)} to ${seconds(s.to)}`);
    for (const s of lane.leads) bar(group, s.from, s.to, y + NODE - 13, 9, 'leads',
      `node ${lane.node} ${s.what}\n${seconds(s.from)} to ${seconds(s.to)}`);
  }
  for (const fault of data.faults) {
    const y = layout.faults + fault.row * FAULT;
    const tip = `${fault.name}\n${seconds(fault.from)} to ${seconds(fault.to)}` +
      (fault.nodes.length ? `\nnodes ${fault.nodes.join(', ')}` : '') + `\n${fault.detail}`;
    const at = bar(group, fault.from, fault.to, y + 2, FAULT - 5, 'band', tip);
    if (at && at[1] - at[0] > fault.name.length * 6.5 + 8)
      make('text', { x: at[0] + 5, y: y + 13, class: 'faint' }, group, fault.name);
    for (const node of fault.nodes) if (nodeY(node) >= layout.nodes && inView(fault.from, fault.to))
      make('rect', { x: x(fault.from), width: Math.max(x(fault.to) - x(fault.from), 1), y: nodeY(node), height: NODE, class: 'shade' }, group);
  }
  label(layout.operations + 15, 'requests');
  ticks(group, operations, () => layout.operations, TASK, () => 0);
  label(layout.deliveries + 15, 'deliveries');
  ticks(group, deliveries, () => layout.deliveries, TASK, () => 0);
  for (let lane = 0; lane < shown; lane++) {
    const y = layout.tasks + lane * TASK;
    label(y + 15, laneName(lane));
    make('line', { x1: LEFT, x2: width, y1: y, y2: y, class: 'rule' }, group);
  }
  ticks(group, marks, mark => layout.tasks + mark.lane * TASK, TASK, mark => mark.lane);

  for (const m of data.messages) {
    // So many arrows say something only from near.
    if (view.to - view.from > 8e6 || !inView(m.t, m.t)) continue;
    const y1 = nodeY(m.from) + NODE / 2, y2 = nodeY(m.to) + NODE / 2;
    const end = m.dropped ? (y1 + y2) / 2 : y2, slant = m.dropped ? 4 : 8;
    make('line', { x1: x(m.t), y1, x2: x(m.t) + slant, y2: end, 'marker-end': 'url(#head)',
      class: m.dropped ? 'message dropped' : 'message' }, group);
    hover.push({ left: x(m.t) - 2, right: x(m.t) + slant + 2, top: Math.min(y1, end), bottom: Math.max(y1, end), rank: 2,
      tip: `${seconds(m.t)}\nnode ${m.from} to node ${m.to}: ${m.what}${m.dropped ? '\nlost on the way' : ''}` });
  }
  const upright = (t, cls, text, y) => {
    if (!inView(t, t)) return;
    make('line', { x1: x(t), x2: x(t), y1: 20, y2: layout.bottom, class: cls }, group);
    const left = x(t) > width - 110;
    make('text', { x: x(t) + (left ? -4 : 4), y, 'text-anchor': left ? 'end' : 'start', class: 'faint' }, group, text);
    hover.push({ left: x(t) - 3, right: x(t) + 3, top: 20, bottom: TOP, rank: 9, tip: `${seconds(t)}\n${text}` });
  };
  for (const t of data.healed) upright(t, 'phase', 'healed', 27);
  for (const t of data.converged) upright(t, 'phase', 'converged', layout.faults + 10);
  const seen = new Set();
  for (const v of data.violations) {
    const px = Math.round(x(v.t));
    if (!seen.has(px)) upright(v.t, 'violation', v.invariant, 27);
    seen.add(px);
  }
  const cursor = make('line', { y1: 20, y2: layout.bottom, x1: -9, x2: -9, class: 'cursor' }, chart);
  chart.cursorLine = cursor;
  el('range').textContent = `${seconds(view.from)} to ${seconds(view.to)} · ${clock(view.from)}`;
}

function look(from, to) {
  const least = 2000, span = Math.min(Math.max(to - from, least), data.end);
  from = Math.min(Math.max((from + to - span) / 2, 0), data.end - span);
  view = { from, to: from + span };
  draw();
}
function zoom(factor, around) {
  const span = (view.to - view.from) * factor;
  const share = (around - view.from) / (view.to - view.from);
  look(around - span * share, around + span * (1 - share));
}

chart.addEventListener('wheel', event => {
  event.preventDefault();
  zoom(event.deltaY > 0 ? 1.25 : .8, timeAt(Math.max(event.offsetX, LEFT)));
}, { passive: false });
let drag = null;
chart.addEventListener('pointerdown', event => { drag = { px: event.clientX, ...view }; chart.setPointerCapture(event.pointerId); });
chart.addEventListener('pointerup', () => { drag = null; });
chart.addEventListener('dblclick', () => look(0, data.end));
chart.addEventListener('pointermove', event => {
  if (drag) {
    const by = (drag.px - event.clientX) / (width - LEFT - RIGHT) * (drag.to - drag.from);
    look(drag.from + by, drag.to + by);
    return;
  }
  const { offsetX: px, offsetY: py } = event;
  for (const end of ['x1', 'x2']) chart.cursorLine.setAttribute(end, px < LEFT ? -9 : px);
  let best = null;
  for (const h of hover)
    if (px >= h.left && px <= h.right && py >= h.top && py <= h.bottom && (!best || h.rank > best.rank)) best = h;
  const tip = el('tip');
  tip.hidden = !best;
  if (!best) return;
  tip.textContent = best.tip;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + 'px';
  tip.style.top = Math.min(event.clientY + 14, innerHeight - box.height - 8) + 'px';
});
chart.addEventListener('pointerleave', () => { el('tip').hidden = true; });
document.addEventListener('keydown', event => {
  const middle = (view.from + view.to) / 2, step = (view.to - view.from) / 5;
  if (event.key === '+') zoom(.7, middle);
  if (event.key === '-') zoom(1.4, middle);
  if (event.key === '0') look(0, data.end);
  if (event.key === 'ArrowLeft') look(view.from - step, view.to - step);
  if (event.key === 'ArrowRight') look(view.from + step, view.to + step);
});
el('in').onclick = () => zoom(.6, (view.from + view.to) / 2);
el('out').onclick = () => zoom(1.6, (view.from + view.to) / 2);
el('all').onclick = () => look(0, data.end);
el('theme').onclick = () => {
  const root = document.documentElement, dark = matchMedia('(prefers-color-scheme: dark)').matches;
  const now = root.dataset.theme || (dark ? 'dark' : 'light');
  root.dataset.theme = now === 'dark' ? 'light' : 'dark';
};
el('copy').onclick = () => navigator.clipboard.writeText(data.replay).then(() => { el('copy').textContent = 'Copied'; });

el('badge').textContent = data.held ? 'HELD' : 'VIOLATED';
el('badge').className = data.held ? '' : 'bad';
if (data.replay) { el('replay').textContent = data.replay; el('again').hidden = false; }
for (const v of data.violations.slice(0, 200)) {
  const line = document.createElement('button');
  line.type = 'button';
  const [when, name] = [document.createElement('i'), document.createElement('b')];
  when.textContent = seconds(v.t) + '  ';
  name.textContent = v.invariant + '  ';
  line.append(when, name, v.what);
  line.onclick = () => look(v.t - 1.5e6, v.t + 1.5e6);
  el('violations').append(line);
  el('violations').hidden = false;
}
if (data.violations.length > 200) el('violations').append(`and ${data.violations.length - 200} more`);

const legend = [
  ['line', 'good', 'fired, delivered or done'], ['line', 'late', 'fired later than 1.5 s, or refused by the receiver'],
  ['line', 'bad', 'missed, early, or later than the bound'], ['line', 'quiet', 'skipped, paused or refused'],
  ['line', 'unknown', 'outcome unknown'], ['rect', 'up', 'up'], ['rect', 'leads', 'believes to lead'],
  ['rect', 'paused', 'paused'], ['rect', 'down', 'down'], ['rect', 'band', 'fault'],
];
for (const [shape, cls, text] of legend) {
  const item = document.createElement('li');
  const icon = document.createElementNS(SVG, 'svg');
  icon.setAttribute('width', 16); icon.setAttribute('height', 14);
  const fill = { up: '--up', leads: '--lead', paused: '--paused', down: '--down', band: '--fault',
    good: '--good', late: '--late', bad: '--bad', quiet: '--quiet', unknown: '--unknown' }[cls];
  make('rect', shape === 'rect' ? { x: 1, y: 2, width: 14, height: 10, style: `fill: var(${fill}); stroke: var(--line)` }
    : { x: 7, y: 0, width: 2.5, height: 14, style: `fill: var(${fill})` }, icon);
  item.append(icon, text);
  el('legend').append(item);
}
// `page.html#36-39` shows those seconds.
const asked = location.hash.match(/^#([\d.]+)-([\d.]+)$/);
if (asked) look(asked[1] * 1e6, asked[2] * 1e6);
new ResizeObserver(draw).observe(chart);
draw();
