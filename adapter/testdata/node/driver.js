// Drives socket.io-client for the tests of package adapter. Commands come as
// JSON lines on stdin, what happens goes as JSON lines to stdout. Bytes travel
// as {"$bytes": base64} in both directions, what else JSON lacks as {"$js":
// expression} to here.
"use strict";
const clients = { 4: require("socket.io-client").io, 3: require("socket.io-client-3").io, 2: require("./client2.js") };
const readline = require("node:readline");

const sockets = new Map();
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function pack(v) {
  if (Buffer.isBuffer(v) || v instanceof Uint8Array) return { $bytes: Buffer.from(v).toString("base64") };
  if (v instanceof ArrayBuffer) return pack(new Uint8Array(v));
  if (Array.isArray(v)) return v.map(pack);
  if (v && typeof v === "object") return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, pack(x)]));
  return v;
}

function unpack(v) {
  if (Array.isArray(v)) return v.map(unpack);
  if (v && typeof v === "object") {
    if (typeof v.$js === "string") return eval(`(${v.$js})`);
    if (typeof v.$bytes === "string") {
      // Not out of a pool: client 2.x for browsers sends all that is behind it.
      const bytes = Buffer.alloc(Buffer.byteLength(v.$bytes, "base64"));
      bytes.write(v.$bytes, "base64");
      return bytes;
    }
    return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, unpack(x)]));
  }
  return v;
}

const commands = {
  open({ name, url, options, version }) {
    if (options.parser) options.parser = require(options.parser);
    const s = clients[version](url, { reconnection: false, forceNew: true, ...options });
    sockets.set(name, s);
    s.on("connect", () => tell({ name, kind: "connect", id: s.id, transport: s.io.engine.transport.name, recovered: s.recovered }));
    s.on("connect_error", (e) => tell({ name, kind: "connect_error", message: e.message, data: e.data, context: e.context && e.context.status }));
    s.on("disconnect", (reason) => tell({ name, kind: "disconnect", reason }));
    s.onAny((event, ...args) => {
      if (event === s.counted) return;
      const ack = typeof args.at(-1) === "function" ? args.pop() : undefined;
      tell({ name, kind: "event", event, args: pack(args), acked: !!ack });
      if (ack && event !== s.unanswered) ack("ack of " + event, ...args);
    });
    s.io.engine && s.io.engine.on("upgrade", (t) => tell({ name, kind: "upgrade", transport: t.name }));
  },
  emit({ name, event, args, call }) {
    const s = sockets.get(name);
    const values = unpack(args ?? []);
    if (call === undefined) return s.emit(event, ...values);
    if (!s.timeout) { // before 4.4
      return s.emit(event, ...values, (...answer) => tell({ name, kind: "answer", call, args: pack(answer) }));
    }
    s.timeout(10000).emit(event, ...values, (err, ...answer) => tell({ name, kind: "answer", call, args: pack(answer), error: err && err.message }));
  },
  // Another namespace over the same connection.
  join({ name, as, nsp, auth, query }) {
    const s = sockets.get(name).io.socket(nsp, { auth, query });
    sockets.set(as, s);
    s.on("connect", () => tell({ name: as, kind: "connect", id: s.id }));
    s.on("connect_error", (e) => tell({ name: as, kind: "connect_error", message: e.message, data: e.data }));
    s.on("disconnect", (reason) => tell({ name: as, kind: "disconnect", reason }));
    s.onAny((event, ...args) => tell({ name: as, kind: "event", event, args: pack(args) }));
    s.connect();
  },
  // Leaves an event without its acknowledgement from now on.
  leave({ name, event }) {
    sockets.get(name).unanswered = event;
    tell({ name, kind: "leaves" });
  },
  // Ends the connection below, as a network does.
  cut({ name }) {
    sockets.get(name).io.engine.close();
  },
  connect({ name }) {
    sockets.get(name).connect();
  },
  close({ name }) {
    sockets.get(name).disconnect();
  },
  stream({ name, event, count }) {
    const s = sockets.get(name);
    for (let i = 0; i < count; i++) s.emit(event, i);
  },
  // The same, a few at a time, so that they meet every stage of an upgrade. The
  // last ones wait for the transport "until". Tells how many were sent by polling.
  trickle({ name, event, count, until }) {
    const s = sockets.get(name);
    let i = 0, polled = 0;
    const some = () => {
      const transport = s.io.engine.transport.name;
      const most = transport === until ? count : count * 0.9;
      const from = i;
      for (const end = Math.min(i + count / 100, most); i < end; i++) s.emit(event, i);
      if (transport === "polling") polled += i - from;
      if (i < count) return setTimeout(some, 1);
      tell({ name, kind: "trickled", args: [polled] });
    };
    s.once("connect", some);
  },
  // Expects events with the numbers from 0, in order, and tells once: when all
  // have come, or what came instead.
  count({ name, event, count }) {
    const s = sockets.get(name);
    let next = 0;
    s.counted = event;
    s.on(event, (i) => {
      if (i !== next) {
        s.off(event);
        return tell({ name, kind: "counted", args: [i], message: `expected ${next} of ${event}` });
      }
      if (++next === count) tell({ name, kind: "counted", args: [next] });
    });
  },
  engine({ name }) {
    const e = sockets.get(name).io.engine;
    const ws = e.transport.ws;
    const wire = ws && ws._socket ? [ws.extensions, ws._socket.bytesRead, ws._socket.bytesWritten] : [];
    tell({ name, kind: "engine", sid: e.id, transport: e.transport.name, args: wire });
  },
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
lines.on("close", () => process.exit(0));
tell({ kind: "ready" });
