// @ts-check

/**
 * Brings a room page to life. The page comes complete from the server; from
 * here on, messages and people arrive over the socket.
 *
 * Everything people write reaches the page as text, never as HTML.
 *
 * @module
 */

import { Client, CallError, socketURL } from "./client.js";

/** @typedef {{ id: string, name: string, avatar: string }} User */
/** @typedef {{ id: number, room: string, text: string, at: string, user: User, nonce?: string }} Message */

/** How soon a message must follow to stand under the same name. */
const FOLLOW_WITHIN = 5 * 60_000;
/** How many pages of missed messages to fetch before starting afresh. */
const MAX_CATCH_UP = 10;
/** Say "typing" this often at most, and believe it for a little longer. */
const TYPING_EVERY = 2_500;
const TYPING_LASTS = 4_000;

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** @param {string} tag @param {string} className @param {string} [text] */
function element(tag, className, text) {
  const e = document.createElement(tag);
  e.className = className;
  if (text !== undefined) e.textContent = text;
  return e;
}

/** @param {string} label @param {() => void} click */
function button(label, click) {
  const b = document.createElement("button");
  b.type = "button";
  b.className = "quiet";
  b.textContent = label;
  b.addEventListener("click", click);
  return b;
}

/** Shows a time in the reader's own zone and words. @param {HTMLTimeElement} time */
function localise(time) {
  const at = new Date(time.dateTime);
  const today = at.toDateString() === new Date().toDateString();
  time.textContent = at.toLocaleString(undefined, today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" });
  time.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "medium" });
}

/** The same colour that the server picks: FNV-1a of the id. @param {string} id */
function hue(id) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(id)) h = Math.imul(h ^ byte, 0x01000193);
  return `hue-${(h >>> 0) % 8}`;
}

/** @param {User} user */
function avatar(user) {
  const span = element("span", `avatar ${hue(user.id)}`, [...user.name.trim()][0]?.toUpperCase() ?? "?");
  span.ariaHidden = "true";
  if (/^(https?:\/\/|\/(?!\/))/.test(user.avatar ?? "")) {
    const img = document.createElement("img");
    img.alt = "";
    img.loading = "lazy";
    img.src = user.avatar;
    span.append(img);
  }
  return span;
}

class Room {
  #root = $("room");
  #name = this.#root.dataset.room ?? "";
  /** @type {User} */
  #me = { id: this.#root.dataset.me ?? "", name: this.#root.dataset.name ?? "", avatar: this.#root.dataset.avatar ?? "" };
  #latest = Number(this.#root.dataset.latest);
  #maxText = Number(this.#root.dataset.maxText);

  #log = $("log");
  /** @type {HTMLOListElement} */
  #list = $("messages");
  /** @type {HTMLTextAreaElement} */
  #text = $("text");

  /** Messages on the page, by id. @type {Map<number, HTMLElement>} */
  #shown = new Map();
  /** Own messages that the server has not confirmed, by nonce. @type {Map<string, HTMLElement>} */
  #pending = new Map();
  /** The last text that came back, with its nonce: sent again unchanged, it is
   * the same message. */
  #returned = { text: "", nonce: "" };
  /** Who is typing, with the timer that forgets it. @type {Map<string, { name: string, timer: number }>} */
  #typing = new Map();
  #typedAt = 0;

  #client = new Client(socketURL(), {
    resubscribe: () => this.#join(),
    onstate: (state, detail) => this.#showState(state, detail),
  });

  start() {
    for (const li of this.#list.querySelectorAll("li")) this.#shown.set(Number(li.dataset.id), li);
    $("keys").hidden = false;

    this.#client.on("chat message", (message) => this.#receive(message));
    this.#client.on("presence", (presence) => presence.room === this.#name && this.#showMembers(presence.members));
    this.#client.on("typing", (typing) => typing.room === this.#name && this.#showTyping(typing.user));

    $("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    // Not on keydown alone: keyboards on screens do not tell their keys, and an
    // Enter that ends the composition of a word breaks no line.
    let shift = false;
    this.#text.addEventListener("keydown", (event) => (shift = event.shiftKey));
    this.#text.addEventListener("beforeinput", (event) => {
      if (event.inputType !== "insertLineBreak" || shift) return;
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("input", () => {
      this.#keepDraft();
      this.#fit();
      this.#sayTyping();
    });
    $("earlier")?.addEventListener("click", (event) => {
      event.preventDefault();
      this.#loadEarlier();
    });
    $("newer").addEventListener("click", () => this.#toBottom());
    this.#log.addEventListener("scroll", () => this.#atBottom() && ($("newer").hidden = true), { passive: true });
    // The server ends this page's socket too; that is no news to whoever clicked.
    $("logout")?.addEventListener("submit", () => this.#client.close());

    this.#text.value ||= this.#draft();
    this.#fit();
    this.#client.open();
  }

  // Connection

  /** Enters the room and brings the page up to date. */
  async #join() {
    const newest = Math.max(0, ...this.#shown.keys());
    const { members, messages } = await this.#client.call("join", { room: this.#name });
    this.#showMembers(members);

    /** @type {Message[]} */
    let missed = messages;
    for (let i = 0; newest > 0 && missed.length > 0 && missed[0].id > newest; i++) {
      if (i === MAX_CATCH_UP) {
        // Away for very long: begin with the latest, the rest is "earlier".
        for (const li of this.#shown.values()) li.remove();
        this.#shown.clear();
        missed = messages;
        this.#offerEarlier(true);
        break;
      }
      const page = await this.#client.call("history", { room: this.#name, before: missed[0].id });
      if (page.messages.length === 0) break;
      missed = [...page.messages, ...missed];
    }
    const fresh = missed.filter((message) => !this.#shown.has(message.id));
    this.#grow(() => fresh.forEach((message) => this.#show(message)));
    if (newest === 0) this.#offerEarlier(messages.length >= this.#latest);
  }

  /** @param {import("./client.js").State} state @param {{ retryIn?: number, reason?: string }} detail */
  #showState(state, { retryIn = 0, reason = "" }) {
    const status = $("status");
    status.hidden = false;
    status.dataset.state = state;
    status.textContent = {
      connecting: "Connecting…",
      connected: "Connected",
      offline: retryIn > 2_000 ? `Offline, next try in ${Math.round(retryIn / 1000)} s` : "Offline",
      ended: "Ended",
    }[state];
    if (state === "ended" && reason !== "closed") this.#end(reason);
  }

  /** The server wants no more of this connection. @param {string} reason */
  #end(reason) {
    const banner = $("ended");
    const words = banner.querySelector("strong");
    if (words) {
      words.textContent =
        { "credential expired": "Your login has expired.", forbidden: "You may not be in this room any more." }[reason] ?? "You were signed out.";
    }
    banner.hidden = false;
    this.#text.disabled = true;
    /** @type {HTMLButtonElement} */ ($("send")).disabled = true;
  }

  // Messages

  /** @param {Message} message */
  #receive(message) {
    if (message.room !== this.#name) return;
    this.#forgetTyping(message.user.id);
    const mine = message.user.id === this.#me.id;
    if (mine && message.nonce && this.#pending.has(message.nonce)) {
      this.#confirm(message.nonce, message.id, message.at);
    } else if (!this.#shown.has(message.id)) {
      this.#grow(() => this.#show(message), !mine);
    }
  }

  /** Puts a message where its id belongs. @param {Message} message */
  #show(message) {
    const li = this.#item(message.user, message.text, message.at);
    this.#place(li, message.id);
  }

  /** @param {User} user @param {string} text @param {string} at */
  #item(user, text, at) {
    const li = element("li", user.id === this.#me.id ? "message mine" : "message");
    li.dataset.user = user.id;
    const by = element("p", "by");
    const time = document.createElement("time");
    time.dateTime = at;
    localise(time);
    by.append(element("bdi", "name", user.name), " ", time);
    const body = element("p", "text", text);
    body.dir = "auto";
    li.append(avatar(user), by, body);
    return li;
  }

  /** @param {HTMLElement} li @param {number} id */
  #place(li, id) {
    const formerNext = li.nextElementSibling;
    li.dataset.id = String(id);
    this.#shown.set(id, li);
    // Nearly always the last place; messages that are not confirmed stay below.
    let after = this.#list.lastElementChild;
    while (after && (after === li || !(Number(/** @type {HTMLElement} */ (after).dataset.id) < id))) after = after.previousElementSibling;
    if (after) after.after(li);
    else this.#list.prepend(li);
    this.#group(li);
    this.#group(li.nextElementSibling);
    this.#group(formerNext);
    $("empty").hidden = true;
  }

  /** Hides the name where the line above has the same. @param {Element | null} li */
  #group(li) {
    if (!(li instanceof HTMLElement)) return;
    const above = li.previousElementSibling;
    const follows =
      above instanceof HTMLElement && above.dataset.user === li.dataset.user && sentAt(li) - sentAt(above) < FOLLOW_WITHIN;
    li.classList.toggle("follows", follows);
  }

  async #loadEarlier() {
    const oldest = Math.min(...this.#shown.keys());
    try {
      const { messages } = await this.#client.call("history", { room: this.#name, before: oldest });
      // Screen readers need not read out the past.
      this.#log.ariaBusy = "true";
      this.#grow(() => messages.forEach((/** @type {Message} */ m) => this.#shown.has(m.id) || this.#show(m)));
      this.#log.ariaBusy = "false";
      this.#offerEarlier(messages.length >= this.#latest);
    } catch (error) {
      this.#refuse(words(error));
    }
  }

  /** @param {boolean} more */
  #offerEarlier(more) {
    $("older").hidden = !more;
  }

  // Writing

  #submit() {
    const text = this.#text.value.trim();
    if (text === "" || this.#client.state === "ended") return;
    const length = [...text].length; // characters, as the server counts
    if (length > this.#maxText) {
      this.#refuse(`A message may have ${this.#maxText} characters; this one has ${length}.`);
      return;
    }
    this.#refuse("");
    const nonce = text === this.#returned.text ? this.#returned.nonce : crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.#write("");
    this.#typedAt = 0;

    const li = this.#item(this.#me, text, new Date().toISOString());
    this.#pending.set(nonce, li);
    this.#grow(() => {
      this.#list.append(li);
      this.#group(li);
      $("empty").hidden = true;
    });
    this.#toBottom();
    this.#send(nonce, text, li);
  }

  /** @param {string} nonce @param {string} text @param {HTMLElement} li */
  async #send(nonce, text, li) {
    this.#mark(li, "sending", "Sending…");
    try {
      const { id, at } = await this.#client.deliver("chat message", { room: this.#name, text, nonce });
      this.#confirm(nonce, id, at);
    } catch (error) {
      // The room may have heard of it before the reply got lost.
      if (this.#pending.has(nonce)) this.#failed(nonce, text, li, error);
    }
  }

  /** @param {string} nonce @param {number} id @param {string} at */
  #confirm(nonce, id, at) {
    const li = this.#pending.get(nonce);
    if (!li) return; // the room's copy came before the reply
    this.#pending.delete(nonce);
    if (this.#shown.has(id)) {
      li.remove(); // it came with the messages missed while offline
      return;
    }
    this.#mark(li, "", "");
    const time = li.querySelector("time");
    if (time) {
      time.dateTime = at;
      localise(time);
    }
    this.#grow(() => this.#place(li, id));
  }

  /**
   * Gives a text back that was not stored: into the form if nothing else is
   * written there, else where it stands, with buttons.
   * @param {string} nonce @param {string} text @param {HTMLElement} li @param {unknown} error
   */
  #failed(nonce, text, li, error) {
    const ended = error instanceof CallError && error.code === "ended";
    const giveBack = () => {
      this.#pending.delete(nonce);
      const below = li.nextElementSibling;
      li.remove();
      this.#group(below);
      $("empty").hidden = this.#list.childElementCount > 0;
      this.#returned = { text, nonce };
      this.#write([text, this.#text.value].filter((part) => part.trim()).join("\n"));
    };
    if (ended || this.#text.value.trim() === "") {
      giveBack();
      if (!ended) this.#refuse(`Not sent. ${words(error)}`);
      return;
    }
    const again = button("Try again", () => this.#send(nonce, text, li));
    const edit = button("Edit", () => {
      giveBack();
      this.#text.focus();
    });
    this.#grow(() => this.#mark(li, "failed", `Not sent. ${words(error)}`, again, edit));
  }

  /** @param {HTMLElement} li @param {"" | "sending" | "failed"} state @param {string} text @param {HTMLElement[]} buttons */
  #mark(li, state, text, ...buttons) {
    li.classList.toggle("sending", state === "sending");
    li.classList.toggle("failed", state === "failed");
    li.querySelector(".state")?.remove();
    if (!state) return;
    const note = element("p", "state", text);
    note.append(...buttons);
    li.append(note);
  }

  /** @param {string} why shown above the form; empty: nothing is wrong */
  #refuse(why) {
    const error = $("error");
    error.textContent = why;
    error.hidden = why === "";
  }

  /** @param {string} text */
  #write(text) {
    this.#text.value = text;
    this.#keepDraft();
    this.#fit();
  }

  /** Makes the field as tall as its text, where CSS cannot. */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#text.rows = Math.min(8, this.#text.value.split("\n").length);
  }

  // What is written stays with this tab and this person, through a reload or
  // a login: see #draft.
  get #draftKey() {
    return `draft ${this.#me.id} ${this.#name}`;
  }

  #keepDraft() {
    try {
      sessionStorage.setItem(this.#draftKey, this.#text.value);
    } catch {
      // Storage may be full or forbidden; the form still holds the text.
    }
  }

  #draft() {
    try {
      return sessionStorage.getItem(this.#draftKey) ?? "";
    } catch {
      return "";
    }
  }

  // People

  /** @param {User[]} members */
  #showMembers(members) {
    $("count").textContent = String(members.length);
    $("members").replaceChildren(
      ...members.map((user) => {
        const li = element("li", "");
        li.dataset.id = user.id;
        li.append(avatar(user), element("bdi", "name", user.name));
        return li;
      }),
    );
  }

  #sayTyping() {
    if (this.#text.value === "" || Date.now() - this.#typedAt < TYPING_EVERY) return;
    this.#typedAt = Date.now();
    this.#client.emit("typing", { room: this.#name });
  }

  /** @param {User} user */
  #showTyping(user) {
    if (user.id === this.#me.id) return; // in another tab
    clearTimeout(this.#typing.get(user.id)?.timer);
    this.#typing.set(user.id, { name: user.name, timer: setTimeout(() => this.#forgetTyping(user.id), TYPING_LASTS) });
    this.#nameTyping();
  }

  /** @param {string} id */
  #forgetTyping(id) {
    clearTimeout(this.#typing.get(id)?.timer);
    if (this.#typing.delete(id)) this.#nameTyping();
  }

  #nameTyping() {
    const names = [...this.#typing.values()].map((t) => t.name);
    $("typing").textContent =
      names.length === 0 ? "" : names.length === 1 ? `${names[0]} is typing…` : names.length === 2 ? `${names[0]} and ${names[1]} are typing…` : "Several people are typing…";
  }

  // Scrolling. The log is a reversed column: its bottom is scrollTop 0, and
  // what is above has negative values.

  #atBottom() {
    return this.#log.scrollTop > -40;
  }

  #toBottom() {
    this.#log.scrollTop = 0;
    $("newer").hidden = true;
  }

  /**
   * Changes the list without moving what is being read: at the bottom it stays
   * at the bottom, elsewhere the same message stays in the same place.
   * @param {() => void} change
   * @param {boolean} [announce] offer the way down if the change is out of sight
   */
  #grow(change, announce = false) {
    if (this.#atBottom()) {
      change();
      this.#log.scrollTop = 0;
      return;
    }
    const top = this.#log.getBoundingClientRect().top;
    const anchor = [...this.#list.children].find((li) => li.getBoundingClientRect().bottom > top);
    const before = anchor?.getBoundingClientRect().top ?? 0;
    change();
    if (anchor?.isConnected) this.#log.scrollTop += anchor.getBoundingClientRect().top - before;
    if (announce) $("newer").hidden = false;
  }
}

/** @param {HTMLElement} li */
function sentAt(li) {
  return Date.parse(li.querySelector("time")?.dateTime ?? "");
}

/** What to tell a person about an error. @param {unknown} error */
function words(error) {
  return error instanceof CallError ? error.message : "Something went wrong; please try again.";
}

for (const time of document.querySelectorAll("time")) localise(time);
// Pages of the past have no form: they are only read.
if (document.getElementById("composer")) new Room().start();
