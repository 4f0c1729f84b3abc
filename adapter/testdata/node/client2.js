// socket.io-client 2.x with what the driver asks of later ones.
"use strict";

// Every socket gets onAny; what refuses it is a connect_error, as it is later.
function adapt(socket) {
  const listeners = [];
  socket.onAny = (listener) => listeners.push(listener);
  const { onevent } = socket;
  socket.onevent = function (packet) {
    const args = packet.data.slice();
    if (packet.id != null) args.push(socket.ack(packet.id));
    for (const listener of listeners) listener(...args);
    // "error" is an event of this client's own: the one that a server sends
    // would be taken for it.
    if (packet.data[0] !== "error") onevent.call(socket, packet);
  };
  socket.on("connect_error", (e) => {
    if (typeof e.description === "number") e.context = { status: e.description };
  });
  socket.on("error", (data) => {
    const message = typeof data === "string" ? data : data.message;
    for (const listener of socket.listeners("connect_error")) listener({ message, data });
  });
  return socket;
}

// What browsers run. They get binary answers to their polls.
function inBrowser() {
  globalThis.XMLHttpRequest = require("./xhr.js");
  return require("socket.io-client-2/dist/socket.io.js");
}

module.exports = (url, options) => {
  // In browsers it has this for polling only.
  options.transportOptions = { polling: { extraHeaders: options.extraHeaders } };
  const client = options.browser ? inBrowser() : require("socket.io-client-2");
  const socket = adapt(client(url, options));
  const manager = socket.io;
  const { socket: open } = manager;
  manager.socket = (nsp, options) => {
    const joined = adapt(open.call(manager, nsp, options));
    joined.connect = () => joined; // it has asked already, and would again
    return joined;
  };
  return socket;
};
