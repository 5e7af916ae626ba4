// The dashboard. Everything that comes from the node is shown as text (textContent), never as markup.

const $ = (id) => document.getElementById(id);
const HISTORY = 90; // seconds of a small curve

let status = null;
let before = null; // the status a second ago, for rates
let actions = {};
let token = sessionStorage.getItem("lbarray-token") || "";
const history = { requests: [], errors: [], connections: [] };

// Making elements

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") element.textContent = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// Replaces content only when it differs, so that focus, selection and screen readers are left in peace.
function become(parent, children) {
  const fresh = document.createElement(parent.tagName);
  fresh.append(...children);
  if (fresh.innerHTML === parent.innerHTML) return;
  const focused = document.activeElement?.dataset?.act;
  parent.replaceChildren(...fresh.childNodes);
  if (focused) parent.querySelector(`[data-act="${CSS.escape(focused)}"]`)?.focus();
}

// Words for numbers

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const number = (value) => (value >= 100 ? whole : tenths).format(value);

const counted = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds === undefined || seconds === null) return "";
  if (seconds < 0.0995) return `${tenths.format(seconds * 1000)} ms`;
  if (seconds < 120) return `${tenths.format(seconds)} s`;
  if (seconds < 7200) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172800) return `${whole.format(seconds / 3600)} h`;
  return `${whole.format(seconds / 86400)} days`;
}

function octets(value) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${tenths.format(value)} ${unit}`;
    value /= 1000;
  }
  return `${tenths.format(value)} TB`;
}

// What the status says

const entries = (value) => Object.entries(value && typeof value === "object" ? value : {});
const sum = (values) => values.reduce((total, value) => total + (Number(value) || 0), 0);
const counter = (from, name) => {
  const value = from?.counters?.[name];
  return typeof value === "object" && value ? sum(Object.values(value)) : Number(value) || 0;
};
const requestsOf = (from) => sum(entries(from?.services).map(([, service]) => service.requests));

function rate(read) {
  if (!before || !status) return 0;
  const passed = status.uptime_s - before.uptime_s;
  return passed > 0 ? Math.max(0, read(status) - read(before)) / passed : 0;
}

const members = () => entries(status.membership?.members);
const backendsOf = () => entries(status.pools).flatMap(([pool, list]) => entries(list).map(([name, one]) => ({ pool, name, ...one })));
const isScheduler = (member) => (member.roles || []).includes("SCHEDULER");
const serves = (state) => state === "up" || state === "unchecked";

// Tiles

function keep(name, value) {
  const values = history[name];
  values.push(value);
  if (values.length > HISTORY) values.shift();
}

function curve(values) {
  const top = Math.max(...values, 1);
  const points = values.map((value, place) => `${place + HISTORY - values.length},${25 - (24 * value) / top}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${HISTORY} 26`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

function tile(name, value, unit = "", tone = "", values = null) {
  return make("div", {}, make("dt", { text: name }),
    make("dd", { class: tone || null }, document.createTextNode(value), unit ? make("small", { text: unit }) : null,
      values ? curve(values) : null));
}

function tiles() {
  const perSecond = rate(requestsOf);
  const failures = rate((from) => counter(from, "answers") + counter(from, "backend_failures"));
  const connections = sum(entries(status.services).map(([, service]) => service.connections));
  keep("requests", perSecond); keep("errors", failures); keep("connections", connections);
  const list = [
    tile("Requests on this node", number(perSecond), "per second", "", history.requests),
    tile("Refused or failed", number(failures), "per second", failures > 0 ? "bad-text" : "", history.errors),
    tile("Connections of clients", number(connections), "open", "", history.connections),
  ];
  const latencies = entries(status.services).map(([, service]) => service.latency_s?.p95).filter((value) => value > 0);
  if (latencies.length) list.push(tile("95 of 100 answers within", duration(Math.max(...latencies))));
  if (status.membership) {
    const missing = status.membership.missing?.length || 0;
    list.push(tile("Nodes in the array", `${members().length} of ${members().length + missing}`, "", missing ? "bad-text" : ""));
  }
  const backends = backendsOf();
  if (backends.length) {
    const well = backends.filter((one) => serves(one.state)).length;
    list.push(tile("Back ends that serve", `${well} of ${backends.length}`, "", well < backends.length ? "warn-text" : ""));
  }
  become($("tiles"), list);
}

// The picture

function act(label, key, run) {
  const button = make("button", { type: "button", text: label, "data-act": key });
  button.dataset.act = key;
  deeds.set(key, run);
  return button;
}
const deeds = new Map();
document.addEventListener("click", (event) => deeds.get(event.target.dataset?.act)?.());

// Each VIP with the name of the node that owns it; an IPv6 router's link-local address is nobody's business.
function owners() {
  const vips = entries(status.failover?.routers).flatMap(([, router]) => router.vips || []).map((vip) => String(vip).split("/")[0]);
  const owned = new Map(members().flatMap(([name, member]) => (member.owned || []).map((vip) => [String(vip), name])));
  return [...new Set(vips)].filter((vip) => !vip.startsWith("fe80:")).map((vip) => [vip, owned.get(vip)]);
}

function vipBoxes() {
  const box = (vip, tone, text) => make("li", { class: `box ${tone}`, "data-vip": vip }, make("strong", { text: vip }), make("p", { text }));
  const vips = owners();
  if (vips.length) return vips.map(([vip, owner]) => box(vip, owner ? "good" : "bad", owner ? `owned by node ${owner}` : "nobody owns it"));
  const places = entries(status.services).map(([, service]) => String(service.at).split("/")[0]);
  return [...new Set(places)].map((place) => box(place, "good", status.membership ? "an address of the array" : "this node listens here"));
}

function nodeBoxes() {
  if (!status.membership) {
    return [make("li", { class: "box good", "data-node": status.node }, make("strong", { text: status.node }),
      make("p", { text: "one standalone node" }))];
  }
  const boxes = members().map(([name, member]) => {
    const tone = member.draining ? "warn" : member.accepting ? "good" : "bad";
    const word = member.draining ? "draining" : member.accepting ? "accepts" : "accepts nobody";
    const scheduler = isScheduler(member);
    const share = status.scheduler?.workers?.[name];
    const acts = [];
    if (token) {
      const draining = Boolean(member.draining);
      acts.push(act(draining ? "Take clients" : "Drain", `drain-${name}`, () => confirmed(
        draining ? `Let node ${name} take clients again?` : `Drain node ${name}?`,
        draining ? "New clients come to it again." : "It takes no new clients; those that are here stay until they leave.",
        draining ? "Take clients" : "Drain", "drain", { name, draining: !draining })));
      const handover = ["handover", "step-down"].find((each) => each in actions);
      if (scheduler && handover) acts.push(act("Hand over", `handover-${name}`, () => confirmed(
        "Hand the VIPs to another node?", "Another node owns them and schedules. Connections stay.", "Hand over", handover, {})));
    }
    return make("li", { class: `box ${tone}${scheduler ? " owner" : ""}`, "data-node": name },
      make("span", { class: `state ${tone}-text`, text: word }),
      make("strong", { text: name }),
      make("p", { text: `${member.address}${scheduler ? " · scheduler" : ""}${name === status.node ? " · this node" : ""}` }),
      make("p", { text: `${number(member.requests_per_s)} requests/s · ${counted(member.connections, "connection")} · `
        + `${whole.format(100 * member.cpu)} % CPU` }),
      share?.rows ? make("p", { text: `${tenths.format(100 * share.rows / sum(entries(status.scheduler.workers).map(([, worker]) => worker.rows)))} % of new connections` }) : null,
      acts.length ? make("div", { class: "acts" }, ...acts) : null);
  });
  for (const name of status.membership.missing || []) {
    boxes.push(make("li", { class: "box bad", "data-node": name }, make("span", { class: "state bad-text", text: "missing" }),
      make("strong", { text: name }), make("p", { text: "sends no heartbeats" })));
  }
  return boxes;
}

const TONES = { up: "good", unchecked: "good", draining: "warn", down: "bad" };

function backendBoxes() {
  return backendsOf().map((one) => {
    const tone = TONES[one.state] || "warn";
    const id = `${one.pool}/${one.name}`;
    const perSecond = rate((from) => from?.pools?.[one.pool]?.[one.name]?.requests || 0);
    const draining = one.state === "draining";
    const acts = token && "drain-backend" in actions ? [act(draining ? "Give clients" : "Drain", `drain-${id}`, () => confirmed(
      draining ? `Give ${id} new clients again?` : `Drain ${id} on every node?`,
      draining ? "It gets its share again." : "It gets no new clients; those bound to it still come.",
      draining ? "Give clients" : "Drain", "drain-backend", { pool: one.pool, backend: one.name, draining: !draining }))] : [];
    return make("li", { class: `box ${tone}`, "data-backend": id, "data-state": one.state, "data-rate": perSecond > 0 ? "1" : "" },
      make("span", { class: `state ${tone}-text`, text: one.state }),
      make("strong", { text: id }),
      make("p", { text: `${one.address} · weight ${one.weight}` }),
      make("p", { text: `${number(perSecond)} requests/s · ${one.outstanding} in hand` + (tone === "bad" ? ` · ${one.check}` : "") }),
      acts.length ? make("div", { class: "acts" }, ...acts) : null);
  });
}

function wires() {
  const svg = $("wires");
  const frame = $("picture").getBoundingClientRect();
  if (!frame.width || getComputedStyle(svg).display === "none") return;
  svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  const paths = [];
  const wire = (from, to, kind) => {
    const [a, b] = [from.getBoundingClientRect(), to.getBoundingClientRect()];
    const [x1, y1, x2, y2] = [a.right - frame.left, a.top + a.height / 2 - frame.top, b.left - frame.left, b.top + b.height / 2 - frame.top];
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const bend = Math.max(20, (x2 - x1) / 2);
    path.setAttribute("d", `M ${x1} ${y1} C ${x1 + bend} ${y1}, ${x2 - bend} ${y2}, ${x2} ${y2}`);
    if (kind) path.setAttribute("class", kind);
    paths.push(path);
  };
  const here = (name, value) => document.querySelector(`[data-${name}="${CSS.escape(value)}"]`);
  for (const vip of document.querySelectorAll("[data-vip]")) {
    for (const node of document.querySelectorAll("[data-node]")) {
      const member = status.membership?.members?.[node.dataset.node];
      if (status.membership && !member) continue;
      wire(vip, node, !member || member.requests_per_s > 0 ? "carries" : "");
    }
  }
  const own = here("node", status.node);
  for (const backend of document.querySelectorAll("[data-backend]")) {
    if (own) wire(own, backend, backend.dataset.state === "down" ? "off" : backend.dataset.rate ? "carries" : "");
  }
  svg.replaceChildren(...paths);
}

function picture() {
  become($("vips"), vipBoxes());
  become($("nodes"), nodeBoxes());
  become($("backends"), backendBoxes());
  const vips = owners();
  const down = backendsOf().filter((one) => one.state === "down").map((one) => `${one.pool}/${one.name}`);
  const said = [];
  for (const name of new Set(vips.map(([, owner]) => owner).filter(Boolean))) {
    const its = vips.filter(([, owner]) => owner === name).map(([vip]) => vip);
    said.push(`Node ${name} owns ${its.join(", ")} and spreads its packets over ${counted(members().length, "node")}.`);
  }
  const lost = vips.filter(([, owner]) => !owner).map(([vip]) => vip);
  if (lost.length) said.push(`Nobody owns ${lost.join(", ")}.`);
  said.push(down.length ? `Down: ${down.join(", ")}.` : "Every back end that is watched is well.");
  said.push("Lines to back ends are this node's own requests.");
  $("caption").textContent = said.join(" ");
  wires();
}

// Tables

function table(id, heads, rows, none) {
  const cell = (value, place) => {
    const [text, tone] = Array.isArray(value) ? value : [value, ""];
    const numeric = heads[place].startsWith("#");
    return make(place ? "td" : "th", { scope: place ? null : "row", class: [numeric ? "number" : "", tone].join(" ").trim() || null, text: text ?? "" });
  };
  const head = make("thead", {}, make("tr", {}, ...heads.map((each) =>
    make("th", { scope: "col", class: each.startsWith("#") ? "number" : null, text: each.replace("#", "") }))));
  const body = make("tbody", {}, ...(rows.length ? rows.map((row) => make("tr", {}, ...row.map(cell)))
    : [make("tr", {}, make("td", { colspan: heads.length, text: none }))]));
  become($(id), [head, body]);
}

function tables() {
  table("services", ["service", "at", "TLS", "#connections", "#requests", "#requests/s", "#half within", "#99 of 100 within"],
    entries(status.services).map(([name, one]) => [name, one.at, one.tls ? "yes" : "no", number(one.connections), number(one.requests),
      number(rate((from) => from?.services?.[name]?.requests || 0)), duration(one.latency_s?.p50 || null), duration(one.latency_s?.p99 || null)]),
    "this node serves no clients");
  const routes = entries(status.services).flatMap(([service, one]) => entries(one.routes).map(([name, route]) => ({ service, name, ...route })))
    .sort((one, other) => other.requests - one.requests);
  $("routes-section").hidden = !routes.length;
  table("routes", ["route", "service", "#requests", "#requests/s", "#errors (5xx)", "#half within", "#99 of 100 within"],
    routes.slice(0, 20).map((one) => [one.name, one.service, number(one.requests),
      number(rate((from) => from?.services?.[one.service]?.routes?.[one.name]?.requests || 0)),
      [number(one.errors), one.errors ? "bad-text" : ""], duration(one.latency_s?.p50 || null), duration(one.latency_s?.p99 || null)]), "none");
  table("pools", ["back end", "address", "state", "#for", "last check", "#weight", "#in hand", "#requests", "#failed", "#idle"],
    backendsOf().map((one) => [`${one.pool}/${one.name}`, one.address, [one.state, `${TONES[one.state] || "warn"}-text`], duration(one.since_s),
      [one.check, "wrap"], one.weight, one.outstanding, number(one.requests), number(one.failures), one.idle]), "none");
  const kinds = ["answers", "requests_refused", "bad_requests", "backend_failures", "retries", "timeouts"];
  const words = { answers: "own answers", requests_refused: "refused", bad_requests: "bad requests", backend_failures: "back-end failures" };
  table("errors", ["what", "why", "#count"], kinds.flatMap((kind) => entries(status.counters?.[kind]).map(([label, value]) =>
    [words[kind] || kind, label, number(value)])), "nothing");
  const certificates = entries(status.services).flatMap(([service, one]) => (one.certificates || []).map((each) => ({ service, ...each })));
  $("certificates-section").hidden = !certificates.length;
  table("certificates", ["names", "service", "#good for"], certificates.map((one) => [
    (one.names || [one.file]).join(", "), one.service,
    [`${tenths.format(one.days_left)} days`, one.days_left < 7 ? "bad-text" : one.days_left < 21 ? "warn-text" : ""],
  ]), "none");
  $("rewriting-section").hidden = !status.rewriting;
  if (status.rewriting) {
    table("rewriting", ["what", "#count"], entries(status.rewriting).filter(([, value]) => typeof value === "number")
      .map(([name, value]) => [name.replaceAll("_", " "), number(value)]), "no page yet");
  }
}

// Events

const LEVELS = { warn: "warn-text", error: "bad-text", critical: "bad-text" };
let newest = 0;

function happened(event) {
  if (event.number <= newest) return;
  newest = event.number;
  const at = new Date(event.at * 1000);
  const level = LEVELS[event.level];
  $("events").prepend(make("li", {},
    make("time", { datetime: at.toISOString(), text: at.toLocaleTimeString() }),
    level ? make("span", { class: `level ${level}`, text: event.level }) : null,
    document.createTextNode(event.text)));
  while ($("events").children.length > 200) $("events").lastElementChild.remove();
}

// The node

function show(fresh) {
  before = status && fresh.uptime_s > status.uptime_s ? status : null;
  if (status && fresh.uptime_s < status.uptime_s) { newest = 0; $("events").replaceChildren(); }
  status = fresh;
  document.title = `${status.array}: lbarray`;
  $("array").textContent = status.array;
  const version = status.configuration?.version;
  $("where").textContent = `seen from node ${status.node} · lbarray ${status.version} · up ${duration(status.uptime_s)}`
    + (version ? ` · configuration ${version}` : "");
  deeds.clear();
  tiles(); picture(); tables();
}

function link(state, text) {
  $("link").className = state;
  if ($("link-text").textContent !== text) $("link-text").textContent = text;
}

function fields() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function listen() {
  const response = await fetch("live", { headers: fields(), cache: "no-store" });
  if (response.status === 401) throw new Error("a token is needed to look from here: press Operate");
  if (!response.ok) throw new Error(`the node answered with status ${response.status}`);
  actions = await (await fetch("actions", { headers: fields() })).json();
  link("live", "live");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the node has closed the connection");
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const part = (name) => lines.find((line) => line.startsWith(name))?.slice(name.length);
      const data = JSON.parse(part("data: ") || "null");
      if (part("event: ") === "status") show(data);
      else if (part("event: ") === "happened") happened(data);
    }
  }
}

async function forever() {
  for (;;) {
    try { await listen(); } catch (error) { link("lost", `not connected: ${error.message}`); }
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

// Changing something

let quiet;
function say(text) {
  $("said").textContent = text;
  $("said").hidden = false;
  clearTimeout(quiet);
  quiet = setTimeout(() => { $("said").hidden = true; }, 8000);
}

async function confirmed(title, text, label, action, values) {
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-ok").textContent = label;
  const dialog = $("confirm-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "ok") return;
  try {
    const response = await fetch(`actions/${action}`, {
      method: "POST", headers: { "Content-Type": "application/json", ...fields() }, body: JSON.stringify(values),
    });
    const answer = await response.json();
    say(response.ok ? answer.said || "done" : `Not done: ${answer.error.message}`);
  } catch (error) {
    say(`Not done: the node could not be asked (${error.message})`);
  }
}

function signed() {
  $("sign").textContent = token ? "Stop operating" : "Operate";
  if (status) picture();
}

$("sign").addEventListener("click", async () => {
  if (token) {
    token = "";
  } else {
    const dialog = $("token-dialog");
    $("token").value = "";
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "ok" || !$("token").value) return;
    token = $("token").value.trim();
    $("token").value = "";
  }
  if (token) sessionStorage.setItem("lbarray-token", token);
  else sessionStorage.removeItem("lbarray-token");
  signed();
});

// Light and dark

function theme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
}
const wanted = localStorage.getItem("lbarray-theme");
theme(wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme !== "dark";
  localStorage.setItem("lbarray-theme", dark ? "dark" : "light");
  theme(dark);
});

addEventListener("resize", () => { if (status) wires(); });
signed();
forever();
