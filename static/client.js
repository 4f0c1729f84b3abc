// @ts-check

/**
 * A small client for Usher's JSON messages over a plain WebSocket.
 *
 * It stays connected: a connection that drops is opened again after a growing,
 * random wait. It knows what may not be repeated: a connection that the server
 * ended for a reason (signed out, not allowed) stays closed and says why.
 *
 *   const client = new Client(socketURL(), {
 *     resubscribe: (client) => client.call("join", { room: "lobby" }),
 *   });
 *   client.on("chat message", (message) => …);
 *   client.open();
 *   const { id } = await client.deliver("chat message", { room: "lobby", text, nonce });
 *
 * @module
 */

/**
 * Where the connection stands. "connecting" lasts until resubscribe is done,
 * "offline" until the next attempt; "ended" is final until open() is called.
 * @typedef {"connecting" | "connected" | "offline" | "ended"} State
 */

/**
 * @typedef {object} Options
 * @property {(client: Client) => Promise<unknown>} [resubscribe] Runs on every
 *   connection before anything queued is sent: join the rooms again here. If it
 *   fails, the connection is given up and opened again later.
 * @property {(state: State, detail: { retryIn?: number, reason?: string }) => void} [onstate]
 *   Hears of every change of state. retryIn is milliseconds; reason is set on "ended".
 * @property {number} [timeout] Milliseconds to wait for a reply: 10 seconds.
 * @property {number} [capacity] Undelivered messages to keep: 100.
 */

/** @typedef {{ type: string, data: unknown, resolve: (data: any) => void, reject: (error: Error) => void, tries: number, sent: boolean }} Delivery */

/** Why a call came to nothing: the server's code and words, or one of our own
 * codes: "offline", "timeout", "full", "ended". */
export class CallError extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.name = "CallError";
    this.code = code;
  }
}

/** Close codes after which connecting again by itself would be wrong or futile.
 * @type {ReadonlyMap<number, string>} */
const ENDED = new Map([
  [4401, "unauthenticated"],
  [4403, "forbidden"],
  [4409, "session ended"],
  [4410, "credential expired"],
]);

const TOO_BIG = 1009;
const RESTARTING = 1012;
const TRY_LATER = 1013;
const TOO_FAST = 4429;

const FIRST_WAIT = 500;
const LONGEST_WAIT = 30_000;
/** A connection that lived this long was a good one: waits start small again. */
const STABLE_AFTER = 5_000;
/** How often one message is sent before its sender hears that it failed. */
const MAX_TRIES = 3;
/** A connection that was heard this recently is taken to be alive. */
const FRESH = 15_000;

/** The address of this site's own socket. `refusals=close` asks the server to
 * refuse with a close code, because a browser cannot see an HTTP status here.
 * @returns {string} */
export function socketURL() {
  const url = new URL("/socket.io/ws?refusals=close", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

export class Client {
  #url;
  #resubscribe;
  #onstate;
  #timeout;
  #capacity;

  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {State} */
  #state = "offline";
  #failures = 0;
  #lastId = 0;
  #heardAt = 0;
  #retryTimer = 0;
  #stableTimer = 0;
  #openTimer = 0;

  /** Listeners by message type. @type {Map<string, Set<(data: any) => void>>} */
  #listeners = new Map();
  /** Calls that wait for their reply, by id. @type {Map<number, { resolve: (data: any) => void, reject: (error: Error) => void, timer: number }>} */
  #waiting = new Map();
  /** What deliver() has promised, oldest first. @type {Delivery[]} */
  #outbox = [];

  /** @param {string} url @param {Options} [options] */
  constructor(url, { resubscribe = async () => {}, onstate = () => {}, timeout = 10_000, capacity = 100 } = {}) {
    this.#url = url;
    this.#resubscribe = resubscribe;
    this.#onstate = onstate;
    this.#timeout = timeout;
    this.#capacity = capacity;
    // Both are the best moments to find out how things stand.
    addEventListener("online", () => this.#wake());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "visible") this.#wake();
    });
  }

  get state() {
    return this.#state;
  }

  /** Connects, and stays connected. */
  open() {
    if (this.#state === "connecting" || this.#state === "connected") return;
    this.#failures = 0;
    this.#connect();
  }

  /** Ends the connection for good; what was not delivered fails. */
  close() {
    this.#detach()?.close(1000);
    this.#failCalls(new CallError("ended", "The connection was closed."));
    this.#end("closed");
  }

  /**
   * Calls f with the data of every message of a type.
   * @param {string} type @param {(data: any) => void} f
   * @returns {() => void} takes the listener away again
   */
  on(type, f) {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set.add(f));
    return () => set.delete(f);
  }

  /** Sends a message that may be lost.
   * @param {string} type @param {unknown} data */
  emit(type, data) {
    if (this.#state === "connected") this.#socket?.send(JSON.stringify({ type, data }));
  }

  /**
   * Sends a message over the present connection and waits for the reply.
   * Fails with a CallError: the server's, "offline" or "timeout".
   * @param {string} type @param {unknown} data
   * @returns {Promise<any>}
   */
  call(type, data) {
    return new Promise((resolve, reject) => {
      const socket = this.#socket;
      if (socket?.readyState !== WebSocket.OPEN) {
        reject(new CallError("offline", "There is no connection."));
        return;
      }
      const id = ++this.#lastId;
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        reject(new CallError("timeout", "The server did not answer."));
        // A live server answers. The browser may take minutes to notice that
        // a connection is dead, so do not wait for it.
        if (socket === this.#socket) this.#drop();
      }, this.#timeout);
      this.#waiting.set(id, { resolve, reject, timer });
      socket.send(JSON.stringify({ type, data, id }));
    });
  }

  /**
   * Sends a message and, whenever the connection drops before the reply, sends
   * it again on the next one. The data must carry something by which the server
   * knows a repetition (a nonce). Fails with a CallError: the server's,
   * "timeout" after several unanswered tries, "full" or "ended".
   * @param {string} type @param {unknown} data
   * @returns {Promise<any>}
   */
  deliver(type, data) {
    return new Promise((resolve, reject) => {
      if (this.#state === "ended") {
        reject(new CallError("ended", "The connection has ended."));
      } else if (this.#outbox.length >= this.#capacity) {
        reject(new CallError("full", "Too many messages are waiting for the connection."));
      } else {
        this.#outbox.push({ type, data, resolve, reject, tries: 0, sent: false });
        this.#flush();
      }
    });
  }

  #connect() {
    clearTimeout(this.#retryTimer);
    this.#become("connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    // Events of a connection that was given up must not touch its successor.
    const current = () => socket === this.#socket;
    socket.onmessage = (event) => current() && this.#receive(event.data);
    socket.onclose = (event) => current() && this.#lost(event.code, event.reason);
    this.#openTimer = setTimeout(() => current() && this.#drop(), this.#timeout);
  }

  /** @param {unknown} text */
  #receive(text) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(String(text));
    } catch {
      console.warn("usher: not JSON:", text);
      return;
    }
    switch (frame.type) {
      case "connect":
        this.#greet();
        return;
      case "reply":
        this.#settle(frame);
        return;
      case "error":
        console.warn("usher:", frame.error?.code, frame.error?.message);
        return;
    }
    for (const f of this.#listeners.get(frame.type) ?? []) f(frame.data);
  }

  /** The server is there and knows who we are: take up where we left off. */
  async #greet() {
    const socket = this.#socket;
    clearTimeout(this.#openTimer);
    try {
      await this.#resubscribe(this);
    } catch (error) {
      console.warn("usher: resubscribe:", error);
      if (socket === this.#socket) this.#drop();
      return;
    }
    if (socket !== this.#socket) return;
    this.#stableTimer = setTimeout(() => (this.#failures = 0), STABLE_AFTER);
    this.#become("connected");
    this.#flush();
  }

  /** @param {{ id: number, data?: any, error?: { code: string, message: string } }} reply */
  #settle({ id, data, error }) {
    const call = this.#waiting.get(id);
    if (!call) return; // answered after its timeout
    this.#waiting.delete(id);
    clearTimeout(call.timer);
    if (error) call.reject(new CallError(error.code, error.message));
    else call.resolve(data);
  }

  /** Sends what waits in the outbox, in order. */
  #flush() {
    if (this.#state !== "connected") return;
    for (const delivery of this.#outbox) {
      if (delivery.sent) continue;
      delivery.sent = true;
      delivery.tries++;
      this.call(delivery.type, delivery.data).then(
        (data) => this.#finish(delivery, () => delivery.resolve(data)),
        (error) => {
          const again = error.code === "offline" || error.code === "timeout";
          if (again && delivery.tries < MAX_TRIES) delivery.sent = false; // the next connection sends it
          else this.#finish(delivery, () => delivery.reject(error));
        },
      );
    }
  }

  /** @param {Delivery} delivery @param {() => void} settle */
  #finish(delivery, settle) {
    const i = this.#outbox.indexOf(delivery);
    if (i < 0) return; // the connection's end has settled it
    this.#outbox.splice(i, 1);
    settle();
  }

  /** Gives up a connection that does not answer. */
  #drop() {
    const socket = this.#detach();
    this.#lost(1006, "");
    socket?.close();
  }

  /** @returns {WebSocket | null} the connection that was the present one */
  #detach() {
    const socket = this.#socket;
    this.#socket = null;
    clearTimeout(this.#openTimer);
    clearTimeout(this.#stableTimer);
    clearTimeout(this.#retryTimer);
    return socket;
  }

  /** @param {number} code @param {string} reason */
  #lost(code, reason) {
    this.#detach();
    this.#failCalls(new CallError(code === TOO_BIG ? "too_big" : "offline", reason || "The connection was lost."));
    const ended = ENDED.get(code);
    if (ended) {
      this.#end(ended);
      return;
    }
    const wait = this.#wait(code);
    this.#failures++;
    this.#retryTimer = setTimeout(() => this.#connect(), wait);
    this.#become("offline", { retryIn: wait });
  }

  /** @param {CallError} error */
  #failCalls(error) {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(error);
    }
    this.#waiting.clear();
  }

  /** How long to wait before the next attempt. Random, so that a thousand
   * clients of a restarted server do not come back in the same instant.
   * @param {number} code */
  #wait(code) {
    const grown = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(this.#failures, 10));
    const least = code === TOO_FAST || code === TRY_LATER ? 5_000 : code === RESTARTING ? 1_000 : 0;
    return least + grown * (0.5 + Math.random() / 2);
  }

  /** Retries now, or finds out whether the connection is still one. */
  #wake() {
    if (this.#state === "offline" && this.#failures > 0) {
      this.#connect();
    } else if (this.#state === "connected" && Date.now() - this.#heardAt > FRESH) {
      // An unanswered call drops the connection; an answer brings what was missed.
      this.#resubscribe(this).catch(() => {});
    }
  }

  /** @param {string} reason */
  #end(reason) {
    for (const { reject } of this.#outbox.splice(0)) {
      reject(new CallError("ended", "The connection has ended."));
    }
    this.#become("ended", { reason });
  }

  /** @param {State} state @param {{ retryIn?: number, reason?: string }} [detail] */
  #become(state, detail = {}) {
    this.#state = state;
    this.#onstate(state, detail);
  }
}
