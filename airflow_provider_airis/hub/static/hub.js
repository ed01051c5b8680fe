// Keeps the page current, and draws the alert's chart. No framework, no build step.

const REFRESH_MS = 5000;

/** Turns one element into another in place, so that focus, selection and scroll position survive a refresh. */
function morph(from, to) {
  if (from.isEqualNode(to)) return;
  if (from.nodeName !== to.nodeName || from.nodeType !== to.nodeType) return from.replaceWith(to.cloneNode(true));
  if (from.nodeType !== Node.ELEMENT_NODE) {
    from.nodeValue = to.nodeValue;
    return;
  }
  for (const { name } of [...from.attributes]) if (!to.hasAttribute(name)) from.removeAttribute(name);
  for (const { name, value } of to.attributes) if (from.getAttribute(name) !== value) from.setAttribute(name, value);
  const [old, fresh] = [[...from.childNodes], [...to.childNodes]];
  fresh.forEach((node, i) => (old[i] ? morph(old[i], node) : from.append(node.cloneNode(true))));
  old.slice(fresh.length).forEach((node) => node.remove());
}

function lost() {
  const health = document.getElementById("health");
  health.replaceChildren(Object.assign(document.createElement("span"), { className: "dot lost" }), "Hub not answering");
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(4 * REFRESH_MS) });
  if (!answer.ok) return lost();
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (fresh) morph(part, fresh);
  }
  document.title = page.title;
  const [data, fresh] = [document, page].map((doc) => doc.getElementById("chart-data"));
  if (Boolean(data) !== Boolean(fresh)) return location.reload();
  if (data && data.textContent !== fresh.textContent) {
    data.textContent = fresh.textContent;
    chart?.update();
  }
}

let timer;
function schedule(wait = REFRESH_MS) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(() => refresh().catch(lost).finally(schedule), wait);
}
document.addEventListener("visibilitychange", () => schedule(0));

const two = (number) => String(number).padStart(2, "0");
const hour = (s) => { const d = new Date(s * 1000); return `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}`; };
const day = (s) => new Date(s * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const compact = new Intl.NumberFormat("en", { maximumSignificantDigits: 4, notation: "compact" });
const number = (value) => (Math.abs(value) < 1e4 ? exact : compact).format(value);

function drawChart() {
  const [plot, at, say] = ["plot", "legend-at", "chart-say"].map((id) => document.getElementById(id));
  const outputs = [...document.querySelectorAll("#legend output")];
  const dashes = [[], [7, 4], [2, 3], [12, 4, 2, 4], [5, 5], [1, 5]];
  let shape, columns, u;

  const read = () => {
    shape = JSON.parse(document.getElementById("chart-data").textContent);
    columns = uPlot.join(shape.series.map((line) => [line.points.map((p) => p[0] / 1000), line.points.map((p) => p[1])]),
      shape.series.map(() => [0, 1]));
  };
  const withUnit = (value) => (value == null ? "–" : `${number(value)}${shape.suffix}`);
  const legend = (index) => {
    const i = index ?? columns[0].length - 1;
    at.textContent = `${day(columns[0][i])}, ${hour(columns[0][i])} UTC${index == null ? ", latest" : ""}`;
    outputs.forEach((output, n) => { output.textContent = withUnit(columns[n + 1]?.[i]); });
  };

  const paint = (name) => getComputedStyle(plot).getPropertyValue(`--${name}`).trim();
  const text = (ctx, words, x, y, colour) => {
    ctx.lineWidth = 4 * devicePixelRatio;
    ctx.strokeStyle = paint("surface");
    ctx.lineJoin = "round";
    ctx.strokeText(words, x, y);
    ctx.fillStyle = colour;
    ctx.fillText(words, x, y);
  };
  // Labels of the marks stand in rows over the plot, each beside its line and none over another.
  const ROW = 17;
  const measure = document.createElement("canvas").getContext("2d");
  const placed = (left, width) => {
    measure.font = `12px ${getComputedStyle(plot).fontFamily}`;
    const ends = [];
    return shape.marks.filter(({ at }) => at >= shape.start && at <= shape.end).map(({ at, title, change }) => {
      const x = left + ((at - shape.start) / (shape.end - shape.start)) * width;
      const words = `${title} ${hour(at / 1000)}`;
      const length = measure.measureText(words).width;
      const start = x + length + 5 > left + width ? x - length - 5 : x + 5;
      let row = 0;
      while (ends[row] > start) row += 1;
      ends[row] = Math.max(x, start + length) + 8;
      return { x, start, words, row, colour: paint({ fired: "critical", resolved: "ok" }[change] ?? "medium") };
    });
  };
  const under = () => {
    const { ctx, bbox } = u;
    const [from, to] = [shape.firing.start / 1000, shape.firing.end / 1000].map((s) =>
      Math.min(Math.max(u.valToPos(s, "x", true), bbox.left), bbox.left + bbox.width));
    ctx.fillStyle = paint("wash");
    ctx.fillRect(from, bbox.top, to - from, bbox.height);
  };
  const over = () => {
    const { ctx, bbox } = u;
    const px = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * px}px ${getComputedStyle(plot).fontFamily}`;
    if (shape.threshold != null) {
      const y = Math.round(u.valToPos(shape.threshold, "y", true));
      ctx.strokeStyle = paint("critical");
      ctx.lineWidth = 1.5 * px;
      ctx.setLineDash([6 * px, 4 * px]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      text(ctx, `Threshold ${withUnit(shape.threshold)}`, bbox.left + 6 * px, y - 3 * px, paint("critical"));
    }
    ctx.textBaseline = "top";
    const marks = placed(bbox.left / px, bbox.width / px);
    for (const { x, row, colour } of marks) {
      ctx.strokeStyle = colour;
      ctx.lineWidth = px;
      ctx.beginPath();
      ctx.moveTo(Math.round(x * px), (row * ROW + 2) * px);
      ctx.lineTo(Math.round(x * px), bbox.top + bbox.height);
      ctx.stroke();
    }
    for (const { start, words, row, colour } of marks) text(ctx, words, start * px, row * ROW * px, colour);
    ctx.restore();
  };

  const build = () => {
    const [quiet, line] = [paint("quiet"), paint("line")];
    const axis = { stroke: quiet, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: `12px ${getComputedStyle(plot).fontFamily}` };
    u?.destroy();
    u = new uPlot({
      width: plot.clientWidth, height: plot.clientHeight, padding: [() => 8 + ROW * (1 + Math.max(0, ...placed(60, plot.clientWidth - 68).map((m) => m.row))), 8, 0, 0], legend: { show: false },
      tzDate: (s) => uPlot.tzDate(new Date(s * 1000), "Etc/UTC"),
      cursor: { y: false, drag: { setScale: false, x: false }, points: { size: 7 } },
      scales: {
        x: { range: () => [shape.start / 1000, shape.end / 1000] },
        y: {
          range: (_, low, high) => {
            const values = [low, high, shape.threshold].filter((v) => v != null);
            const [least, most] = [Math.min(0, ...values), Math.max(...values)];
            return [least, most + (most - least || 1) * 0.12];
          },
        },
      },
      axes: [
        { ...axis, space: 70, size: 34, values: (_, at) => at.map((s, i) => (i && day(s) === day(at[i - 1]) && s % 86400 ? hour(s) : `${hour(s)}\n${day(s)}`)) },
        { ...axis, size: (_, labels) => 14 + 7 * Math.max(3, ...(labels ?? []).map((l) => l.length)), values: (_, at) => at.map((v) => `${number(v)}${shape.suffix}`) },
      ],
      series: [{}, ...shape.series.map((_, n) => ({
        stroke: paint(`s${(n % 6) + 1}`), width: n ? 1.5 : 2, dash: dashes[n % 6], points: { show: (_, i) => columns[i].length < 3 } }))],
      hooks: { drawClear: [(self) => { u = self; under(); }], draw: [over], setCursor: [(self) => legend(self.cursor.idx)] },
    }, columns, plot);
    legend();
  };

  const move = (index) => {
    u.setCursor({ left: u.valToPos(columns[0][index], "x"), top: 10 });
    say.textContent = `${at.textContent}: ${shape.series.map((s, n) => `${s.label} ${outputs[n].textContent}`).join(", ")}`;
  };
  plot.addEventListener("keydown", (event) => {
    const last = columns[0].length - 1;
    const now = u.cursor.idx ?? last;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, PageUp: now - 10, PageDown: now + 10, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    move(Math.min(Math.max(next, 0), last));
  });
  plot.addEventListener("blur", () => u.setCursor({ left: -10, top: -10 }));

  const cell = (tag, words, scope) => Object.assign(document.createElement(tag), { textContent: words }, scope && { scope });
  const table = () => {
    const box = document.querySelector("#chart-table .scroll");
    if (!box.parentElement.open) return box.replaceChildren();
    const grid = document.createElement("table");
    grid.createTHead().insertRow().append(cell("th", "Time (UTC)", "col"), ...shape.series.map((s) => cell("th", s.label, "col")));
    const body = grid.createTBody();
    for (let i = columns[0].length - 1; i >= 0; i -= 1) {
      body.insertRow().append(cell("th", `${day(columns[0][i])}, ${hour(columns[0][i])}`, "row"),
        ...shape.series.map((_, n) => cell("td", withUnit(columns[n + 1][i]))));
    }
    box.replaceChildren(grid);
  };
  document.getElementById("chart-table").addEventListener("toggle", table);

  read();
  build();
  new ResizeObserver(() => u.setSize({ width: plot.clientWidth, height: plot.clientHeight })).observe(plot);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  return {
    update() {
      const lines = shape.series.map((s) => s.label).join("\n");
      read();
      if (shape.series.map((s) => s.label).join("\n") !== lines) return location.reload();
      u.setData(columns);
      legend(u.cursor.idx);
      table();
    },
  };
}

const chart = document.getElementById("plot") && drawChart();
if (document.querySelector("[data-live]")) schedule();
