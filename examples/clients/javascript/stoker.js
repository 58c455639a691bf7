// A client of `stoker serve` for node, Deno, Bun and browsers: it needs fetch and nothing else.
//
//   const actor = await Actor.connect("http://127.0.0.1:8000", "npc-7", token);
//   let action = await actor.start(observation);
//   action = await actor.step({ observation, reward, terminated, truncated });
//   await actor.close();
//
// Each step is numbered. The client keeps a record until the server has it on disk, and sends it again after a
// cut connection or a restart of the server. So every step is learned exactly once.

const ANSWERS = ["gap", "training-done", "unknown-actor"]; // problems that say how to go on
const MOST_RECORDS = 256; // in one message
const MOST_KEPT = 10_000; // then it waits for the server's disk

export class Actor {
  /** Continue the stream of this name, also after a restart of this program. */
  static async connect(url, name, token) {
    const actor = new Actor(url, name, token);
    const known = await actor.request("GET", `/v1/actors/${encodeURIComponent(name)}`);
    actor.seq = (known.answer?.next ?? 1) - 1;
    return actor;
  }

  constructor(url, name, token) {
    this.url = url.replace(/\/+$/, "");
    this.name = name;
    this.token = token;
    this.seq = 0; // the number of the last record
    this.kept = []; // the records that are not on the server's disk yet
    this.chosen = {}; // the last action, with the server's memo about it
    this.isDone = false; // whether the training has ended
  }

  /** Begin an episode. Returns its first action. */
  start(observation, seed) {
    return this.send({ start: true, observation, seed });
  }

  /** Send what the last action led to. Returns the next action; null at the end of an episode. */
  step({ observation, reward, terminated = false, truncated = false, extras }) {
    return this.send({ ...this.chosen, reward, observation, terminated, truncated, extras });
  }

  /** Return when all records are on the server's disk. */
  async close() {
    while (this.kept.length && !this.isDone) await this.post(this.kept, "durable");
  }

  async send(fields) {
    const record = { actor: this.name, seq: ++this.seq, ...fields };
    this.kept.push(record);
    try {
      let answer = await this.post([record], this.kept.length > MOST_KEPT ? "durable" : "accepted");
      while (answer.next <= record.seq && !this.isDone) {
        // The server was restarted and says from where it needs the records again.
        answer = await this.post(this.kept.filter(({ seq }) => seq >= answer.next));
      }
      this.chosen = { action: answer.action, memo: answer.memo };
      return answer.action;
    } catch (error) {
      this.seq -= 1; // the record was refused, and its number is free for another one
      this.kept.pop();
      throw error;
    }
  }

  async post(records, ack = "accepted") {
    const answer = await this.request("POST", "/v1/step", { steps: records.slice(0, MOST_RECORDS), ack });
    const mine = answer.actors[this.name];
    this.isDone = answer.training === "done" || kindOf(answer) === "training-done";
    if (mine.next > this.seq + 1) throw new Error(`another client plays ${this.name}`);
    this.kept = this.kept.filter(({ seq }) => seq > mine.durable);
    if (this.kept.length && mine.next < this.kept[0].seq) throw new Error("the server has lost its run");
    return mine;
  }

  async request(method, path, body) {
    const headers = { "content-type": "application/json" };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    for (let wait = 20; ; wait = Math.min(2 * wait, 5000)) {
      let pause = wait * (0.5 + Math.random());
      // Not AbortSignal.timeout: node does not wait for it, and exits if a connection was cut in mid-answer.
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), 30_000);
      try {
        const { signal } = late;
        const response = await fetch(this.url + path, { method, headers, body: JSON.stringify(body), signal });
        const answer = await response.json();
        if (response.ok || ANSWERS.includes(kindOf(answer))) return answer;
        if (response.status !== 429 && response.status < 500) {
          throw Object.assign(new Error(`${answer.title}: ${answer.detail}`), { isFinal: true });
        }
        pause = Math.max(pause, 1000 * (response.headers.get("retry-after") ?? 0));
      } catch (error) {
        if (error.isFinal) throw error;
      } finally {
        clearTimeout(timer);
      }
      // Full, starting, cut or timed out: the same request again is harmless.
      await new Promise((resume) => setTimeout(resume, pause));
    }
  }
}

/** The last part of a problem's type, such as "gap" of "urn:stoker:problem:gap". */
function kindOf(answer) {
  return answer.type?.split(":").pop();
}
