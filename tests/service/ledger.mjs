// Actors that write down each record before they send it, by HTTP requests: see ledger.py.
// node ledger.mjs PORT FILE FIRST N RECORDS
import { createWriteStream } from "node:fs";

const [port, path, first, nActors, nRecords] = process.argv.slice(2);
const ledger = createWriteStream(path);

class Actor {
  constructor(number) {
    Object.assign(this, { number, name: `js-${number}`, seq: 0, unsafe: [], answered: null });
    Object.assign(this, { episode: -1, step: 0, length: 0 });
  }

  newRecord() {
    const seq = ++this.seq;
    const start = this.step === this.length || (this.episode % 11 === 7 && 2 * this.step > this.length);
    if (start) {
      this.episode += 1;
      this.step = 0;
      this.length = 3 + ((7 * this.number + 5 * this.episode) % 29);
    } else this.step += 1;
    const observation = [this.number, seq % 1000, this.step, this.episode % 100];
    const record = { actor: this.name, seq, observation };
    let [reward, end] = [null, 0];
    if (start) record.start = true;
    else {
      record.memo = this.answered.memo; // holds the action, too
      record.reward = reward = ((37 * seq + this.number) % 101) / 8;
      if (this.step === this.length) {
        end = (this.episode + this.number) % 2 ? 1 : 2;
        record[end === 1 ? "terminated" : "truncated"] = true;
      }
    }
    const action = start ? null : this.answered.action;
    ledger.write(JSON.stringify([this.name, seq, start, observation, action, reward, end]) + "\n");
    return record;
  }

  async play(n) {
    while (this.seq < n) {
      const record = this.newRecord();
      this.unsafe.push((this.last = record));
      await this.send({ steps: [record] }, () => this.seq);
    }
    await this.send({ steps: [this.last], ack: "durable" }, () => (this.unsafe.length ? Infinity : this.seq));
  }

  async send(body, until) {
    for (;;) {
      const mine = (await this.post("/v1/step", body)).actors[this.name];
      this.unsafe = this.unsafe.filter((record) => record.seq > (mine.durable ?? 0));
      if (mine.next > until()) {
        this.answered = mine;
        return;
      }
      const steps = this.unsafe.filter((record) => record.seq >= mine.next);
      body = { ...body, steps: steps.length ? steps : [this.last] };
    }
  }

  async post(route, body) {
    for (let wait = 10; ; wait = Math.min(2 * wait, 1000)) {
      // Not AbortSignal.timeout: node does not wait for it, and exits if a connection was cut in mid-answer.
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), 5_000);
      try {
        const response = await fetch(`http://127.0.0.1:${port}${route}`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
          signal: late.signal,
        });
        const answer = await response.json();
        if (response.ok || response.status === 409) return answer;
        if (response.status !== 429 && response.status !== 503) {
          console.error(`refused: ${JSON.stringify(answer)}`);
          process.exit(1);
        }
      } catch {
        // cut or timed out: the same request again is harmless
      } finally {
        clearTimeout(timer);
      }
      await new Promise((go) => setTimeout(go, wait * (0.5 + Math.random())));
    }
  }
}

await Promise.all(Array.from({ length: Number(nActors) }, (_, i) => new Actor(Number(first) + i).play(Number(nRecords))));
ledger.end();
