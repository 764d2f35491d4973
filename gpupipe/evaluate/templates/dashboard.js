(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, attributes = {}, ...children) => {
    const node = ["svg", "path", "text", "title", "rect", "circle"].includes(tag)
      ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const number = (v) => v === null || v === undefined ? "–" : v === 0 ? "0"
    : Math.abs(v) >= 1e5 || Math.abs(v) < 1e-4 ? v.toExponential(1) : String(+v.toPrecision(4));
  const percent = (v) => `${+(100 * v).toPrecision(3)}%`;
  const sign = (state) => make("span", { class: `sign ${state}` },
    make("i", { "aria-hidden": "true" }, data.symbols[state]), state);
  const legend = (...items) => make("ul", { class: "legend" }, ...items.map(([css, text]) =>
    make("li", { class: css }, make("i"), make("span", {}, text))));

  // Numbers: the reference as filled bars, the window as an outline over them.
  const histogram = (edges, then, now, name) => {
    const [W, H, L, B] = [480, 220, 8, 26];
    const low = edges[0], span = edges[edges.length - 1] - low || 1;
    const most = Math.max(...then, ...now, 1e-9);
    const x = (v) => L + (v - low) / span * (W - 2 * L);
    const y = (v) => H - B - v / most * (H - B - 10);
    let bars = "", line = `M${x(edges[0])} ${y(0)}`;
    then.forEach((v, i) => { bars += `M${x(edges[i])} ${y(0)}V${y(v)}H${x(edges[i + 1])}V${y(0)}Z`; });
    now.forEach((v, i) => { line += `V${y(v)}H${x(edges[i + 1])}`; });
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((s) => make("text", { x: x(low + s * span), y: H - 8,
      class: "tick", "text-anchor": s === 0 ? "start" : s === 1 ? "end" : "middle" },
      number(Math.abs(low + s * span) < span * 1e-4 ? 0 : low + s * span)));
    return make("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img",
      "aria-label": `${name}: distribution in training and in this window` },
      make("path", { class: "bar then", d: bars }),
      make("path", { class: "outline now", d: `${line}V${y(0)}` }),
      make("path", { class: "axis", d: `M${L} ${H - B}H${W - L}` }), ...ticks);
  };

  // Text: two bars a value.
  const levels = (names, then, now, name) => {
    const shown = names.map((n, i) => [n, then[i], now[i]]).filter(([, a, b]) => a || b);
    const [W, L, T] = [480, 150, 26], most = Math.max(...then, ...now, 1e-9);
    const wide = (v) => Math.max(v ? 1 : 0, v / most * (W - L - 62));
    const rows = shown.flatMap(([n, a, b], i) => [
      make("text", { class: "level", x: L - 8, y: i * T + 16, "text-anchor": "end" },
        n.length > 20 ? n.slice(0, 19) + "…" : n, make("title", {}, n)),
      make("rect", { class: "bar then", x: L, y: i * T + 3, height: 8, width: wide(a) }),
      make("rect", { class: "bar now", x: L, y: i * T + 12, height: 8, width: wide(b) }),
      make("text", { class: "tick", x: L + Math.max(wide(a), wide(b)) + 6, y: i * T + 16 },
        percent(b)),
    ]);
    return make("svg", { class: "plot", viewBox: `0 0 ${W} ${shown.length * T + 6}`, role: "img",
      "aria-label": `${name}: shares in training and in this window` }, ...rows);
  };

  const table = (heads, rows) => make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((h, i) => make("th",
      { scope: "col", class: i && i < heads.length - 1 ? "num" : "" }, h)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((c, i) => make(
      i ? "td" : "th", i ? { class: i < row.length - 1 ? "num" : "" } : { scope: "row" }, c)))))));

  const measures = (cell) => cell.m.length ? table(
    ["measure", "value", "without noise", "alert from", "q", "state"],
    cell.m.map(([name, value, effect, , alert, q, state]) =>
      [name, number(value), number(effect), number(alert), number(q), sign(state)])) : null;

  // The effect of a measure over all windows, beside its thresholds.
  const story = (column, at) => {
    const cell = data.cells[column][at];
    const ratio = (m) => m[2] / (m[4] || 1);
    const chief = cell && cell.m.length ? cell.m.reduce((a, b) => ratio(b) > ratio(a) ? b : a) : null;
    if (!chief) return null;
    const points = data.cells[column].map((c, i) => {
      const m = c && c.m.find((one) => one[0] === chief[0]);
      return m ? [i, m[2]] : null;
    });
    const [W, H, L, R, B] = [480, 150, 8, 40, 24], n = data.windows.length;
    const most = Math.max(chief[4], ...points.filter(Boolean).map((p) => p[1])) * 1.1 || 1;
    const x = (i) => n > 1 ? L + i / (n - 1) * (W - L - R) : (W - R) / 2;
    const y = (v) => H - B - v / most * (H - B - 10);
    const d = points.map((p, i) => p ? `${points[i - 1] ? "L" : "M"}${x(p[0])} ${y(p[1])}` : "").join("");
    const rules = [["warn", chief[3]], ["alert", chief[4]]].flatMap(([name, v]) => [
      make("path", { class: "rule", d: `M${L} ${y(v)}H${W - R}` }),
      make("text", { class: "note", x: W - R + 4, y: y(v) + 4 }, name)]);
    const here = points[at];
    return make("figure", {}, make("h4", {}, `${chief[0]} without noise, by window`),
      make("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img",
        "aria-label": `${chief[0]} by window` }, ...rules,
        make("path", { class: "axis", d: `M${L} ${H - B}H${W - R}` }),
        make("path", { class: "line s0", d }),
        ...points.filter(Boolean).map((p) => make("circle",
          { class: "dot s0", cx: x(p[0]), cy: y(p[1]), r: 2.5 })),
        here ? make("circle", { class: "dot s1", cx: x(here[0]), cy: y(here[1]), r: 5 }) : null,
        ...data.ticks.map((t, i) => t ? make("text", { class: "tick", x: x(i), y: H - 7,
          "text-anchor": i ? "middle" : "start" }, t) : null).filter((t, i, all) => t && (
          all.filter(Boolean).indexOf(t) % 2 === 0))));
  };

  const steps = (key, row, at) => make("span", { class: "steps" },
    at > 0 ? make("a", { href: `#${key}${row}w${at - 1}` }, "← earlier") : null,
    at < data.windows.length - 1 ? make("a", { href: `#${key}${row}w${at + 1}` }, "later →") : null);

  const column = (row, at) => {
    const { name, then } = data.columns[row], cell = data.cells[row][at], w = data.windows[at];
    const head = make("div", { class: "detail-head" }, make("h3", {}, make("bdi", {}, name)),
      cell ? sign(cell.s) : null,
      make("span", { class: "muted" }, `${w.name}, ${w.rows.toLocaleString("en")} rows`),
      steps("c", row, at));
    const left = make("div"), right = make("div");
    if (cell && cell.y) left.append(make("p", { class: "muted" }, cell.y + "."));
    if (cell && cell.p && then) {
      left.append(legend(["then", `training, ${then.rows.toLocaleString("en")} rows`],
        ["now", `this window, ${cell.p.rows.toLocaleString("en")} rows`]));
      left.append(then.edges ? histogram(then.edges, then.then, cell.p.now, name)
        : levels(then.labels, then.then, cell.p.now, name));
      left.append(make("p", { class: "small muted" },
        `Missing: ${percent(then.missing)} in training, ${percent(cell.p.missing)} in this window.`
        + (then.edges ? " What lies beyond the ends is in the outer bars." : "")));
    }
    if (cell && cell.u && Object.keys(cell.u).length) {
      left.append(make("p", { class: "small" }, "Never seen in training: ",
        ...Object.entries(cell.u).flatMap(([value, n], i) => [i ? ", " : "",
          make("bdi", {}, value), ` (${n.toLocaleString("en")})`])));
    }
    if (cell) right.append(...[story(row, at), measures(cell)].filter(Boolean));
    return [head, make("div", { class: "detail-grid" }, left, right)];
  };

  const part = (row, at) => {
    const off = data.parts[row][at], w = data.windows[at];
    const head = make("div", { class: "detail-head" }, make("h3", {}, make("bdi", {}, data.slices[row])),
      make("span", { class: "muted" }, w.name), steps("s", row, at));
    if (!off.length) return [head, make("p", { class: "muted" }, "No column warns or alerts here.")];
    return [head, ...off.flatMap((cell) => [make("h4", {}, make("bdi", {}, cell.c), " ", sign(cell.s)),
      measures(cell)])];
  };

  const show = () => {
    const wanted = /^#([cs])(\d+)w(\d+)$/.exec(location.hash);
    if (!wanted) return;
    const [key, row, at] = [wanted[1], Number(wanted[2]), Number(wanted[3])];
    const rows = key === "c" ? data.cells : data.parts;
    if (!rows[row] || at >= data.windows.length) return;
    const cells = document.querySelectorAll(`.heat a[href^="#${key}"]`);
    cells.forEach((c) => c.removeAttribute("aria-current"));
    const cell = document.querySelector(`.heat a[href="${wanted[0]}"]`);
    if (cell) cell.setAttribute("aria-current", "true");
    document.getElementById(key === "c" ? "detail" : "part")
      .replaceChildren(...(key === "c" ? column(row, at) : part(row, at)));
  };
  document.querySelectorAll(".heat").forEach((h) => {  // the newest windows are at the right
    h.parentElement.scrollLeft = h.parentElement.scrollWidth;
  });
  window.addEventListener("hashchange", show);
  if (/^#[cs]\d+w\d+$/.test(location.hash)) show();
  else {  // What is worst in the newest window is shown to begin with.
    const order = ["alert", "warn", "ok", "insufficient"];
    const at = data.windows.length - 1;
    let best = -1;
    data.cells.forEach((row, i) => {
      const rank = row[at] ? order.indexOf(row[at].s) : 9;
      const now = best < 0 ? 10 : order.indexOf(data.cells[best][at].s);
      if (row[at] && rank < now) best = i;
    });
    if (best >= 0) {
      const cell = document.querySelector(`.heat a[href="#c${best}w${at}"]`);
      if (cell) cell.setAttribute("aria-current", "true");
      document.getElementById("detail").replaceChildren(...column(best, at));
    }
  }
})();
