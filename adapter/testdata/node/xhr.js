// As much of a browser's XMLHttpRequest as socket.io-client 2.x asks for. With
// it that client speaks the binary framing of Engine.IO 3: on Node.js it asks
// for base64.
"use strict";
const http = require("node:http");

module.exports = class XMLHttpRequest {
  readyState = 0;
  status = 0;
  responseType = "";
  response = null;
  responseText = "";
  #headers = {};

  open(method, url) {
    this.method = method;
    this.url = url;
  }

  setRequestHeader(name, value) {
    this.#headers[name] = value;
  }

  getResponseHeader(name) {
    return this.incoming.headers[name.toLowerCase()] ?? null;
  }

  async send(data) {
    this.request = http.request(this.url, { method: this.method, headers: this.#headers }, (incoming) => {
      this.incoming = incoming;
      this.status = incoming.statusCode;
      this.#become(2);
      const chunks = [];
      incoming.on("data", (chunk) => chunks.push(chunk));
      incoming.on("end", () => {
        const body = Buffer.concat(chunks);
        if (this.responseType === "arraybuffer") this.response = new Uint8Array(body).buffer;
        else this.responseText = body.toString();
        this.#become(4);
      });
    });
    this.request.on("error", () => {
      this.status = 0;
      this.#become(4);
    });
    if (data instanceof Blob) data = await data.arrayBuffer();
    this.request.end(data instanceof ArrayBuffer ? Buffer.from(data) : data ?? undefined);
  }

  abort() {
    this.onreadystatechange = () => {};
    this.request?.destroy();
  }

  #become(state) {
    this.readyState = state;
    this.onreadystatechange?.();
  }
};
